"""Real short trainings: S1 after every step, S3, resumption to the bit, and what stops a run."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import Logger
from micro import SMALL, write_tokens_folder
from torch import Tensor
from twelve_steps import CONFIG, DENSE, SPARSE, STEPS, new_model, new_module, same, weights

from sparsity_lab.core import metrics
from sparsity_lab.core.errors import UserError
from sparsity_lab.data.datamodule import TokenDataModule
from sparsity_lab.model.checkpoints import load_model
from sparsity_lab.results.metrics_log import MetricsLog
from sparsity_lab.training.fit import Progress, fit, precision
from sparsity_lab.training.module import LanguageModule
from sparsity_lab.training.snapshots import snapshot_folder


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokens_folder(tmp_path_factory.mktemp("tokens"))


def train(
    module: LanguageModule,
    tokens: Path,
    folder: Path,
    loggers: list[Logger] | None = None,
    at: Sequence[float] = (),
) -> dict[str, float]:
    config = module.config
    data = TokenDataModule(
        tokens, SMALL.n_ctx, config.batch_size, module.n_steps, 7, config.validation_windows
    )
    return fit(module, data, folder, loggers or [], "test", at)


class Counted(LanguageModule):
    """Counts nonzeros after every optimizer step."""

    def on_train_batch_end(self, *args: Any) -> None:
        super().on_train_batch_end(*args)
        self.counts: list[tuple[int, dict[str, int]]] = getattr(self, "counts", [])
        found = self.model.sparse_weights()
        self.counts.append(
            (self.global_step, {name: int(w.count_nonzero()) for name, (w, _) in found.items()})
        )


@pytest.mark.parametrize("kept_fraction", [0.2, 0.02])
def test_s1_every_tensor_has_exactly_its_nonzeros_after_every_step(
    tokens: Path, tmp_path: Path, kept_fraction: float
) -> None:
    sparsity = SPARSE.model_copy(update={"kept_fraction": kept_fraction})
    module = new_module(sparsity, cls=Counted)
    final = train(module, tokens, tmp_path, [MetricsLog(tmp_path)])
    assert [step for step, _ in module.counts] == list(range(1, STEPS + 1))
    for step, counts in module.counts:
        kept = 1 - (1 - kept_fraction) * min(1, step / (STEPS / 2))
        for name, (weight, axis) in module.model.sparse_weights().items():
            guarded = 0 if axis is None else weight.shape[axis] * min(3, weight.shape[1 - axis])
            assert counts[name] == max(round(kept * weight.numel()), guarded), (step, name)
    of_one_component = (metrics.VALIDATION_LOSS, metrics.VALIDATION_ERROR, metrics.KURTOSIS)
    assert final.keys() == {metric.name for metric in of_one_component}
    table = (tmp_path / "metrics.csv").read_text()
    for metric in metrics.TRAINING + metrics.VALIDATION:
        assert metric.name in table
    assert str(sum(module.counts[-1][1].values())) in table


def test_s3_at_kept_fraction_1_the_sparse_module_trains_as_the_dense_one(
    tokens: Path, tmp_path: Path
) -> None:
    dense = new_module(DENSE)
    sparse = new_module(SPARSE.model_copy(update={"kept_fraction": 1.0}))
    before = weights(dense)
    results = [train(dense, tokens, tmp_path / "dense"), train(sparse, tokens, tmp_path / "sparse")]
    assert same(weights(dense), weights(sparse))
    assert results[0] == results[1]
    assert not same(weights(dense), before)


def test_training_lowers_the_loss_and_is_the_same_each_time(tokens: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"checkpoint_every": 100})
    modules = [new_module(config=config, n_steps=40) for _ in range(2)]
    finals = [train(module, tokens, tmp_path / str(index)) for index, module in enumerate(modules)]
    assert same(weights(modules[0]), weights(modules[1]))
    assert finals[0] == finals[1]
    assert finals[0][metrics.VALIDATION_LOSS.name] < 2.0  # ln 10 = 2.3 is chance, ln 3 = 1.1 the best


def test_the_log_holds_our_own_lines_alone(
    tokens: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("INFO")
    train(new_module(DENSE), tokens, tmp_path)
    told = [(record.name, record.getMessage()) for record in caplog.records]
    assert {name for name, _ in told} == {"sparsity_lab.training.fit"}
    assert told[-1][1].startswith(f"test: step {STEPS} of {STEPS}, loss ")
    assert capfd.readouterr() == ("", "")


def test_time_left_is_that_of_the_steps_after_the_first_and_not_told_too_early(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first step takes 100 s, all others 1 s: after 7 steps of 20 there are 13 s left."""
    clock = iter([0.0, *(100.0 + step for step in range(1, 21))])
    monkeypatch.setattr("sparsity_lab.training.fit.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("sparsity_lab.training.fit.compiled_before", lambda: False)
    caplog.set_level("INFO")
    module, progress = new_module(DENSE, n_steps=20), Progress("test", seconds=0.0)
    module.is_measured = lambda step: False
    trainer: Any = SimpleNamespace(global_step=0, world_size=1, loggers=[])
    progress.on_train_start(trainer, module)
    for step in range(1, 21):
        trainer.global_step = step
        progress.on_train_batch_end(trainer, module, None, torch.zeros(2, 9), step)
    compiling, *lines = [record.getMessage() for record in caplog.records]
    assert compiling == "test: compiling kernels, once: the first step takes about a minute"
    assert [" left" in line for line in lines] == [False] * 5 + [True] * 15
    assert lines[6].endswith(", 16 tokens/s, 13 s left")


def test_a_failure_before_the_training_starts_is_not_hidden() -> None:
    failure = RuntimeError("a checkpoint that cannot be read")
    Progress("test").on_exception(SimpleNamespace(), new_module(DENSE), failure)  # type: ignore[arg-type]


class Interrupted(Exception):
    """A power cut."""


class StopsAt(LanguageModule):
    """Stops before step `stop`; notes the steps that it began."""

    stop = -1

    def on_train_start(self) -> None:
        self.begun: list[int] = []

    def on_train_batch_start(self, batch: Tensor, index: int) -> None:
        self.begun.append(self.global_step)
        if self.global_step == self.stop:
            raise Interrupted


@pytest.mark.parametrize("stop", [3, 5, 8])
def test_an_interrupted_training_that_goes_on_ends_with_the_same_weights(
    tokens: Path, tmp_path: Path, stop: int
) -> None:
    whole = new_module()
    expected = train(whole, tokens, tmp_path / "whole")
    broken = new_module(cls=StopsAt)
    broken.stop = stop
    with pytest.raises(Interrupted):
        train(broken, tokens, tmp_path / "broken")
    assert (tmp_path / "broken" / "checkpoints" / "last.ckpt").exists() == (stop >= 5)
    resumed = new_module(cls=StopsAt, model=new_model(0 if stop < 5 else 99))  # 99: the checkpoint decides
    assert train(resumed, tokens, tmp_path / "broken") == expected
    assert resumed.begun == list(range(0 if stop < 5 else 5, STEPS))
    assert same(weights(resumed), weights(whole))


class Noted(StopsAt):
    """Notes the weights after every step."""

    def on_train_batch_end(self, *args: Any) -> None:
        self.after: dict[int, dict[str, Tensor]] = getattr(self, "after", {})
        self.after[self.global_step] = weights(self)


@pytest.mark.parametrize("stop", [3, 5, 8])
def test_snapshots_are_the_model_after_their_step_whatever_interrupts(
    tokens: Path, tmp_path: Path, stop: int
) -> None:
    steps = {0.01: 1, 0.25: 3, 0.42: 5, 0.75: 9}
    whole = new_module(cls=Noted)
    train(whole, tokens, tmp_path / "whole", at=tuple(steps))
    broken = new_module(cls=StopsAt)
    broken.stop = stop
    with pytest.raises(Interrupted):
        train(broken, tokens, tmp_path / "broken", at=tuple(steps))
    kept = {at for at in steps if snapshot_folder(tmp_path / "broken", at).exists()}
    assert kept == {at for at, step in steps.items() if step <= stop}
    train(new_module(), tokens, tmp_path / "broken", at=tuple(steps))
    for at, step in steps.items():
        for folder in ("whole", "broken"):
            found = load_model(snapshot_folder(tmp_path / folder, at))
            assert same(found.state_dict(), whole.after[step]), (folder, at)


class Poisoned(LanguageModule):
    def on_train_batch_start(self, batch: Tensor, index: int) -> None:
        if self.global_step == 7:
            with torch.no_grad():
                self.model.unembedding.weight[0, 0] = float("nan")


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(
    tokens: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        UserError, match=r"loss is nan at step 7: lower trainer.learning_rate; the last checkpoint is"
    ):
        train(new_module(cls=Poisoned), tokens, tmp_path)
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 5
    assert all(torch.isfinite(tensor).all() for tensor in saved["state_dict"].values())


class Steep(LanguageModule):
    """A finite loss whose gradient is infinite, in the step that would be saved."""

    def training_step(self, windows: Tensor, index: int) -> Tensor:
        loss = super().training_step(windows, index)
        if self.global_step == 9:
            loss.register_hook(lambda gradient: gradient * float("inf"))
        return loss


def test_a_gradient_that_is_not_finite_never_reaches_a_checkpoint(tokens: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gradient is (nan|inf) at step 9: lower trainer.learning_rate"):
        train(new_module(cls=Steep), tokens, tmp_path)
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 5


def test_a_diverging_learning_rate_is_told(tokens: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"learning_rate": 1e38})
    with pytest.raises(UserError, match=r"at step \d+: lower trainer.learning_rate"):
        train(new_module(DENSE, config), tokens, tmp_path)


def test_precision_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert precision("float32") == "32-true"
    assert precision("bfloat16") == "bf16-mixed"
    for native, expected in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr("sparsity_lab.kernels.machine.native_bf16", lambda native=native: native)
        assert precision("auto") == expected


def test_bfloat16_autocast_keeps_weights_and_counts_exact(tokens: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"precision": "bfloat16"})
    modules = [new_module(config=config) for _ in range(2)]
    for index, module in enumerate(modules):
        train(module, tokens, tmp_path / str(index))
    assert same(weights(modules[0]), weights(modules[1]))
    for weight, axis in modules[0].model.sparse_weights().values():
        assert weight.dtype == torch.float32
        guarded = 0 if axis is None else weight.shape[axis] * 3
        assert weight.count_nonzero() == max(round(0.2 * weight.numel()), guarded)


@pytest.mark.parametrize("log_every", [1, 4])
def test_the_log_has_one_row_a_measured_step_and_validation_whatever_interrupts(
    tokens: Path, tmp_path: Path, log_every: int
) -> None:
    config = CONFIG.model_copy(update={"log_every": log_every, "checkpoint_every": 3})

    def rows(folder: Path) -> list[list[str]]:
        lines = (folder / "metrics.csv").read_text().splitlines()
        throughput = lines[0].split(",").index(metrics.THROUGHPUT.name)
        return [
            [*cells[:throughput], *cells[throughput + 1 :]] for cells in (x.split(",") for x in lines[1:])
        ]

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    train(new_module(config=config), tokens, whole, [MetricsLog(whole)])
    measured = sorted({1, STEPS, *range(log_every, STEPS + 1, log_every)})
    assert [int(row[0]) for row in rows(whole)] == sorted([*measured, 6, 12])  # validations after 6 and 12
    for stop in (4, 6, 7, 11):
        interrupted = new_module(config=config, cls=StopsAt)
        interrupted.stop = stop
        with pytest.raises(Interrupted):
            train(interrupted, tokens, broken, [MetricsLog(broken)])
    with (broken / "metrics.csv").open("a") as file:
        file.write("1")  # cut off
    train(new_module(config=config), tokens, broken, [MetricsLog(broken)])
    assert rows(broken) == rows(whole)
