"""The picture of steering, from results as a run leaves them."""

from pathlib import Path

import pytest

from analysis import plot_steering
from sparsity_lab.bridges.steering_record import Candidate, Steering, SteeringResult, save_steering
from sparsity_lab.circuits.circuit import Node

NODE = Node(layer=1, site="attn_in", channel=7)


def made_up(task: str, single: float = 0.3, together: tuple[float, ...] = (0.6, 0.8)) -> SteeringResult:
    def steering(name: str, last: float, *nodes: Node) -> Steering:
        return Steering(
            name=name, boundary=2, nodes=nodes, norm=0.5, probability=(0.02, last / 2, last),
            kept=(0.9, 0.5, 0.1), random=((0.02, 0.02, 0.03), (0.02, 0.02, 0.01)),
        )  # fmt: skip

    several = [steering(f"2 channels at boundary {i}", last, NODE, NODE) for i, last in enumerate(together)]
    return SteeringResult(
        task=task, model="m", dense="d", pairs=9, strengths=(0.0, 0.5, 1.0),
        candidates=(Candidate(node=NODE, effect=1.0),),
        steerings=(steering("1.attn_in.7", single, NODE), *several, steering("the whole read", 0.9)),
    )  # fmt: skip


def test_the_ratios() -> None:
    one = made_up("t").steerings[0]
    assert one.times_none == pytest.approx(15)
    assert one.times_random == pytest.approx(10)


def test_it_draws_what_it_finds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for task in ("quote", "weird\x1b[31m$x$"):
        save_steering(made_up(task), tmp_path / "steering" / task.replace("\x1b", "") / "steering.json")
    assert plot_steering.main([str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "quote: 1.attn_in.7: 0.0200 to 0.3000, 15.0 times none, 10.0 times the best of 2 random" in said
    assert "\x1b" not in said
    svg = (tmp_path / "steering.svg").read_text()
    assert "the circuit's 2 channels at boundary 1" in svg  # the better of the two
    assert "$x$" in svg
    assert (tmp_path / "steering.png").stat().st_size > 10_000


def test_a_single_channel_alone_is_drawn() -> None:
    result = made_up("t", together=())
    assert plot_steering.best_together(result) is result.steerings[0]
    plot_steering.draw([result, result.model_copy(update={"steerings": result.steerings[:1]})])


def test_a_folder_without_steering_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plot_steering.main([str(tmp_path)]) == 1
    assert "no steering/TASK/steering.json here" in capsys.readouterr().err
