"""Sizes of several sides over those of the first: the tasks, the intervals, and what is refused."""

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest
from made_up import record, without_circuit

from analysis.compare_models import Relation, main, relations
from analysis.models import Configuration, Target, models
from sparsity_lab.core.errors import UserError
from sparsity_lab.results.record import RunRecord, write_record


def sparse(loss: float, edges: Mapping[str, int], seed: int = 0) -> RunRecord:
    made = record("sparse", 64, 100, loss, edges, targets={0.3: 0.5})
    return made.model_copy(update={"config_hash": f"{loss}{seed}", "name": f"{loss}-{seed}"})


def side(name: str, *records: RunRecord) -> Configuration:
    return Configuration(name, tuple(models(records, Target(0.15))))


def edges_of(*sides: Configuration) -> list[Relation]:
    return [one for one in relations(sides) if one.measure == "edges"]


BASE = side("base", sparse(1.8, {"a": 10, "b": 40, "c": 7}))


def test_the_ratio_is_the_geometric_mean_over_the_tasks_of_every_side_whatever_the_losses() -> None:
    """a is four times and b as large as the base's; c and d are not of all."""
    other = side("other", sparse(1.5, {"a": 40, "b": 40, "d": 9}))
    third = side("third", sparse(1.9, {"a": 10, "b": 10, "c": 7}))
    found, last = edges_of(BASE, other, third)
    assert (found.model, found.base, found.tasks) == ("other", "base", 2)
    assert (found.ratio, found.loss, found.excess) == pytest.approx((2, 1.5, -0.3))
    assert (found.low, found.high) == pytest.approx((1, 4))  # each task alone in a quarter of the draws
    assert (found.seeds, found.base_seeds, found.resampled) == (1, 1, "tasks, twins as one")
    assert (last.ratio, last.excess) == pytest.approx((0.5, 0.1))
    assert next(iter(relations([BASE, other]))).measure == "nodes"


@pytest.mark.parametrize("turned", [False, True])
def test_seeds_are_averaged_and_resampled_on_both_sides(turned: bool) -> None:
    one = side("one", sparse(1.8, {"a": 10}))
    two = side("two", sparse(1.5, {"a": 20}), sparse(1.7, {"a": 80}, 1))
    (found,) = edges_of(two, one) if turned else edges_of(one, two)
    power = -1 if turned else 1
    assert (found.seeds, found.base_seeds) == ((1, 2) if turned else (2, 1))
    assert found.ratio == pytest.approx(math.sqrt(2 * 8) ** power)
    assert (found.low, found.high) == pytest.approx((1 / 8, 1 / 2) if turned else (2, 8))
    assert found.resampled == "seeds and tasks, twins as one"


def test_a_task_counts_if_a_seed_has_it_and_draws_without_any_circuit_do_not() -> None:
    two = side("two", sparse(1.5, {"a": 20}), sparse(1.7, {"b": 80}, 1))
    (found,) = edges_of(side("one", sparse(1.8, {"a": 10})), two)
    assert (found.ratio, found.low, found.high) == pytest.approx((2, 2, 2))


def test_twins_are_resampled_as_one_task() -> None:
    base = side("base", sparse(1.8, {"a": 10, "a_twin": 10}))
    (found,) = edges_of(base, side("other", sparse(1.5, {"a": 20, "a_twin": 80})))
    assert (found.ratio, found.low, found.high) == (pytest.approx(4), None, None)
    assert found.resampled == ""


def written(folder: Path, made: RunRecord) -> Path:
    write_record(made, folder)
    return folder


def test_the_table_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = written(tmp_path / "base", sparse(1.8, {"a": 10, "b": 40}))
    first = written(tmp_path / "first", sparse(1.5, {"a": 20, "b": 80}))
    second = written(tmp_path / "second", sparse(1.7, {"a": 80, "b": 320}, 1))
    table = tmp_path / "new" / "table.csv"
    assert main([f"base={base}", f"two={first},{second}", "--csv", str(table)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "sizes over those of base (geometric means, 95 % bootstrap, target 0.15 nats)"
    header = "model seeds base's seeds loss excess nodes (2 tasks) edges (2 tasks)"
    assert " ".join(shown[1].split()) == header
    row = "two 2 1 1.600 -0.200 1.00 [1.00, 1.00] 4.00 [2.00, 8.00]"
    assert " ".join(shown[2].split()) == row
    assert shown[3] == "intervals over seeds and tasks, twins as one"
    found = pd.read_csv(table).set_index("measure")
    assert found.ratio.to_dict() == pytest.approx({"nodes": 1, "edges": 4})
    assert (found.seeds.tolist(), found.base_seeds.tolist()) == ([2, 2], [1, 1])


def test_another_target_gives_its_own_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = written(tmp_path / "base", sparse(1.8, {"a": 3}))  # 2 edges at 0.3 nats, by rounding 1.5
    other = written(tmp_path / "other", sparse(1.5, {"a": 6}))  # 3 there
    assert main([f"base={base}", f"other={other}", "--target", "0.3"]) == 0
    assert "1.50" in capsys.readouterr().out
    assert main([f"base={base}", f"other={other}", "--relative"]) == 1
    assert "has no circuit at 0.15 nats above the whole model's loss; there: 0.15 nats, 0.3 nats" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        (["{a}"], "{a}: a side is given as NAME=FOLDER[,FOLDER...]"),
        (["a={a}"], "nothing to compare a with: give another NAME=FOLDER[,FOLDER...]"),
        (["a={a}", "b={root}/none"], "{root}/none: no such folder of runs"),
        (["a={a}", "b={root}"], "{root}: holds 3 records; name the folder of one run"),
        (["a={a}", "b={a},{a}"], "b={a},{a}: names a run twice"),
        (["a={a}", "b={b}"], "no task for which a, b all have a circuit"),
        (["a={a}", "b={c}"], "{c}: has no circuit at 0.15 nats; there: none"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sides: list[str], message: str
) -> None:
    folders = {
        "root": tmp_path,
        "a": written(tmp_path / "a", sparse(1.8, {"a": 10})),
        "b": written(tmp_path / "b", sparse(1.7, {"b": 10})),
        "c": written(
            tmp_path / "c",
            record("sparse", 64, 100, 1.8, {}, others=(without_circuit("a", "not_learned"),)),
        ),
    }
    assert main([text.format(**folders) for text in sides]) == 1
    assert capsys.readouterr().err == f"error: {message.format(**folders)}\n"


def test_a_folder_in_place_of_the_table_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = written(tmp_path / "base", sparse(1.8, {"a": 3}))
    assert main([f"base={base}", f"other={base}", "--csv", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"error: --csv {tmp_path}: is a folder; give a file\n"


def test_a_base_may_be_compared_with_itself() -> None:
    with pytest.raises(UserError, match="nothing to compare"):
        list(relations([BASE]))
    assert [one.ratio for one in relations([BASE, BASE])] == pytest.approx([1, 1])
