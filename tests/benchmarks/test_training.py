"""The benchmark compares like with like: its kinds of step do the same; it writes its table and picture."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from micro import SMALL, VOCABULARY, random_tokens
from omegaconf import OmegaConf

from benchmarks import training as bench
from benchmarks import whole_training
from benchmarks.plain_pytorch import PlainMagnitude, PlainNextToken, PlainTransformer
from sparsity_lab.core.errors import UserError
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.training.config import TrainerConfig
from sparsity_lab.training.module import LanguageModule
from sparsity_lab.training.objective import NextToken
from sparsity_lab.training.sparsity.magnitude import Config, Magnitude

TRAINER = TrainerConfig(tokens=1000, batch_size=2, learning_rate=0.1)
WIDE_DENSE = {"d_model": 1024, "method": "dense"}
SPARSITY = Config(kept_fraction=0.2, at_least=2, anneal_until=0.0)


def trained(
    transformer: type[Transformer], objective: NextToken, sparsifier: type[Magnitude]
) -> tuple[list[float], dict[str, Any]]:
    """The losses before and after a step, and the weights then.

    No more steps: of the zeros that tie once weights are zero, the plain way lets others pass a gradient.
    """
    torch.manual_seed(0)
    table_vv = torch.randn(VOCABULARY, VOCABULARY)
    model, windows = transformer(SMALL, VOCABULARY, table_vv), random_tokens(2, 12)
    trains = LanguageModule(model, objective, sparsifier(SPARSITY, model, 1), TRAINER, 1)
    optimizer = trains.configure_optimizers()["optimizer"]
    loss, _ = objective(model, windows, 0, None)
    loss.backward()
    trains.scale_gradients()
    optimizer.step()
    return [loss.item(), objective(model, windows, 1, None)[0].item()], model.state_dict()


def test_the_plain_step_does_what_the_shipped_one_does() -> None:
    plain = trained(PlainTransformer, PlainNextToken(), PlainMagnitude)
    shipped = trained(Transformer, NextToken(), Magnitude)
    assert plain[0] == pytest.approx(shipped[0], rel=1e-5)
    for name, tensor in shipped[1].items():
        torch.testing.assert_close(plain[1][name], tensor, rtol=1e-3, atol=1e-5)
        if name.endswith("weight") and "norm" not in name:
            assert 0.19 < tensor.count_nonzero() / tensor.numel() < 0.6  # projected, not dense


def test_the_table_has_a_row_for_each_width_and_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "VOCABULARY", 32)
    monkeypatch.setattr(bench, "NONZEROS", 900)
    monkeypatch.setattr(bench, "PEAK_SIZE", 64)
    monkeypatch.setattr(bench, "prepare_processor", lambda threads: None)  # it is for the whole process
    monkeypatch.setattr(bench, "in_own_process", lambda call: call())
    arguments = ["--widths", "16", "32", "--repetitions", "2", "--seconds", "0", "--out", str(tmp_path)]
    assert bench.main(arguments) == 0
    with (tmp_path / "bench.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["d_model"], row["kind"]) for row in rows] == [
        (width, kind) for width in ("16", "32") for kind in bench.KINDS
    ]
    for row in rows:
        assert float(row["lowest"]) <= float(row["tokens_per_second"]) <= float(row["highest"])
        assert (row["kind"] == "dense") == bool(row["share_of_peak"]) == (row["to_dense"] == "1.0")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_whole_trainings_have_a_row_for_each_width_and_method(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_training, "VOCABULARY", 32)
    monkeypatch.setattr(whole_training, "STEPS", 40)
    monkeypatch.setattr(whole_training, "kept_share", lambda width: 0.06)
    monkeypatch.setattr(bench, "prepare_processor", lambda threads: None)
    monkeypatch.setattr(whole_training, "prepare_processor", lambda threads: None)
    monkeypatch.setattr(whole_training, "in_own_process", lambda call: call())
    path = tmp_path / "whole.csv"
    arguments = ["--widths", "32", "--repetitions", "2", "--seconds", "0", "--csv", str(path)]
    assert bench.main([*arguments, "--precision", precision]) == 0
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == list(whole_training.METHODS)
    for row in rows:
        assert float(row["lowest"]) <= float(row["tokens_per_second"]) <= float(row["highest"])
        assert (row["method"] == "dense") == (row["kept_fraction"] == "1.0")
        assert row["precision"] == precision
    assert rows[0]["ratio_to_dense"] == "1.0"


def test_a_table_of_whole_trainings_grows(tmp_path: Path) -> None:
    path, key = tmp_path / "whole.csv", {"activation_fraction": 1.0, "batch_size": 16, "nonzeros": ""}
    key |= {"precision": "float32", "threads": 1}
    wide = {"tokens_per_second": 5, "ratio_to_dense": 1.0, "peak_mb": 7} | key | WIDE_DENSE
    narrow = {"d_model": 256, "method": "exact", "tokens_per_second": 9} | key
    faster = {"tokens_per_second": 6} | key | WIDE_DENSE
    other_threads = {"peak_mb": 9} | key | WIDE_DENSE | {"threads": 2}
    for rows in ([wide], [narrow], [faster], [{"peak_mb": 8} | key | WIDE_DENSE], [other_threads]):
        bench.write_table(whole_training.COLUMNS, whole_training.joined(path, rows), path)
    with path.open(newline="") as file:
        found = list(csv.DictReader(file))
    shown = ("d_model", "tokens_per_second", "ratio_to_dense", "peak_mb")
    assert [tuple(row[name] for name in shown) for row in found] == [
        ("256", "9", "", ""),
        ("1024", "6", "", "8"),  # the ratio of another run's speed is gone
        ("1024", "", "", "9"),
    ]


def test_the_budget_of_a_whole_training() -> None:
    shape = whole_training.Shape(16, batch_size=1, nonzeros=2500)
    training = whole_training.Training("amortised", shape)
    training.go_to(0.9)
    weights = training.module.model.sparse_weights().values()
    nonzeros = sum(int(weight.count_nonzero()) for weight, _ in weights)
    assert nonzeros == pytest.approx(2500, rel=0.1)  # narrow matrices keep one in each channel, which is more
    assert whole_training.Shape(512).budget == {"kept_fraction": 1 / 32}


def test_quick_is_amortised_with_the_values_of_its_config() -> None:
    groups = Path(__file__).parents[2] / "conf" / "sparsity"
    quick = OmegaConf.to_container(OmegaConf.load(groups / "amortised_quick.yaml"))
    assert isinstance(quick, dict)
    quick.pop("defaults")
    assert quick == whole_training.QUICK


def test_another_table_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="not a table of whole trainings"):
        bench.main(["--csv", str(path), "--widths", "8", "--only", "speed"])
    assert path.read_text() == "a,b\n1,2\n"


def test_moments_of_one_kept_fraction_are_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean over a training weights each timed moment by how many it stands for."""
    timed = []

    def seconds_a_step(training: whole_training.Training, at_least: float) -> float:
        kept = training.module.sparsifier.kept_fraction(training.module.done)
        timed.append(kept)
        return kept

    monkeypatch.setattr(whole_training, "VOCABULARY", 32)
    monkeypatch.setattr(whole_training, "STEPS", 160)
    monkeypatch.setattr(whole_training.Training, "seconds_a_step", seconds_a_step)
    found = whole_training.time_steps(whole_training.Shape(16, batch_size=1), ["dense", "exact"], 2, 0)
    assert found["dense"] == [1, 1]
    annealed = [0.88, 0.64, 0.4, 0.16]
    assert timed == pytest.approx([kept for share in (*annealed, 0.04) for kept in (1, share) * 2])
    assert found["exact"] == pytest.approx([(sum(annealed) + 4 * 0.04) / 8] * 2)


@pytest.mark.parametrize("method", ["exact", "amortised", "quick"])
def test_a_training_can_be_put_at_any_moment_of_its_schedule(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_training, "VOCABULARY", 32)
    monkeypatch.setattr(whole_training, "kept_share", lambda width: 0.06)
    training = whole_training.Training(method, whole_training.Shape(32))
    training.step()
    for progress in (0.1, 0.9):
        training.go_to(progress)
        expected = training.module.sparsifier.kept_fraction(training.module.done)
        weight = training.module.model.unembedding.weight
        assert weight.count_nonzero() == pytest.approx(expected * weight.numel(), abs=1)
    assert expected == pytest.approx(0.06)


def test_matrix_flops_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "VOCABULARY", 10)
    monkeypatch.setattr(bench, "N_CTX", 4)
    # two layers of 12 · 2² weights, 2 · 10 to unembed, and 2 layers · 2 products · 2 (of 4, causal) · 2
    assert bench.matrix_flops(2) == 6 * (96 + 20 + 16)


def test_a_wrong_option_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["--widths", "0"])
    assert "0: must be at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--precision", "float32"], ["--batch-size", "4"], ["--only", "memory"]])
def test_an_option_of_whole_trainings_asks_for_their_table(
    option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        bench.main(option)
    assert f"{option[0]} is of whole trainings; give --csv FILE as well" in capsys.readouterr().err
