"""Two processes on two devices train the model that one trains, and fail as one."""

import os
import socket
import subprocess
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
import twelve_steps
from micro import SMALL, write_tokens_folder
from torch import Tensor
from twelve_steps import METHOD_FILE, SPARSE, STEPS, new_module

from sparsity_lab.core import metrics
from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.paths import UserPath
from sparsity_lab.data.datamodule import TokenDataModule
from sparsity_lab.model.dispatch import kernels_are_on, plain_operations
from sparsity_lab.results.metrics_log import MetricsLog
from sparsity_lab.results.runs import read_all
from sparsity_lab.training.config import TrainerConfig
from sparsity_lab.training.fit import fit
from sparsity_lab.training.module import LanguageModule
from sparsity_lab.training.ranks import cluster, other_ranks
from sparsity_lab.training.sparsity.amortised import Config as Amortised
from sparsity_lab.training.sparsity.file import Config as FromFile
from sparsity_lab.training.sparsity.random_mask import Config as RandomMask
from sparsity_lab.training.sparsity.sparsifier import SparsifierConfig

ROOT = Path(__file__).parents[2]
CONFIG = twelve_steps.CONFIG.model_copy(update={"log_every": 3, "accelerator": "cpu"})
TWO = CONFIG.model_copy(update={"devices": 2})


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokens_folder(tmp_path_factory.mktemp("tokens"))


def tell_switch(folder: Path) -> None:
    (folder / os.environ["LOCAL_RANK"]).write_text(str(kernels_are_on()))


@pytest.mark.parametrize("on", [True, False])
def test_other_ranks_have_kernels_where_the_first_has(on: bool, tmp_path: Path) -> None:
    with nullcontext() if on else plain_operations(), other_ranks(TWO, partial(tell_switch, tmp_path)):
        pass
    assert (tmp_path / "1").read_text() == str(on)


class Noted(LanguageModule):
    """Every rank leaves its weights and its gradients' size in a file of its own."""

    folder: Path

    def on_train_end(self) -> None:
        torch.save(self.model.state_dict(), self.folder / f"rank{self.global_rank}.pt")


class Stops(Noted):
    """One rank breaks off in the middle."""

    where: tuple[int, int] = (-1, -1)

    def on_train_batch_start(self, batch: Tensor, index: int) -> None:
        if (self.global_rank, self.global_step) == self.where:
            raise OSError("the machine is gone")


class Poisoned(Noted):
    """One rank's share of the batch has a loss that isn't a number."""

    def training_step(self, windows: Tensor, index: int) -> Tensor:
        loss = super().training_step(windows, index)
        return loss * float("nan") if (self.global_rank, self.global_step) == (1, 7) else loss


M = TypeVar("M", bound=Noted)


def module(kind: type[M], config: TrainerConfig, folder: Path, sparsity: SparsifierConfig = SPARSE) -> M:
    folder.mkdir(exist_ok=True)
    made: M = new_module(sparsity, config, cls=kind)
    made.folder = folder
    return made


def train(made: Noted, tokens: Path) -> dict[str, float]:
    config = made.config
    data = TokenDataModule(tokens, SMALL.n_ctx, config.batch_size, STEPS, 7, config.validation_windows)
    return fit(made, data, made.folder, [MetricsLog(made.folder)], "test")


def saved(folder: Path, local: int) -> dict[str, Tensor]:
    found: dict[str, Tensor] = torch.load(folder / f"rank{local}.pt", weights_only=True)
    return found


def rows(folder: Path) -> list[dict[str, float]]:
    header, *lines = (folder / "metrics.csv").read_text().splitlines()
    return [
        {name: float(value) for name, value in zip(header.split(","), line.split(","), strict=True) if value}
        for line in lines
    ]


def test_two_ranks_train_as_one_process_does(tokens: Path, tmp_path: Path) -> None:
    before = dict(os.environ)
    one, two = module(Noted, CONFIG, tmp_path / "one"), module(Noted, TWO, tmp_path / "two")
    expected, found = train(one, tokens), train(two, tokens)
    assert found == pytest.approx(expected, rel=1e-5)
    assert dict(os.environ) == before
    assert not torch.distributed.is_initialized()

    first, second, alone = (
        saved(tmp_path / "two", 0),
        saved(tmp_path / "two", 1),
        saved(tmp_path / "one", 0),
    )
    for name, weight in first.items():
        assert torch.equal(weight, second[name]), name  # the same masks, the same weights, to the bit
        assert torch.equal(weight != 0, alone[name] != 0), name
        torch.testing.assert_close(weight, alone[name], rtol=1e-4, atol=1e-6)
        assert torch.equal(weight, two.model.state_dict()[name]), name

    for theirs, ours in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        theirs.pop(metrics.THROUGHPUT.name, None), ours.pop(metrics.THROUGHPUT.name, None)
        assert ours == pytest.approx(theirs, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sparsity",
    [
        RandomMask(kept_fraction=0.2, at_least=3),
        Amortised(kept_fraction=0.1, start=1.5, dense_every=3, candidates=0.5),
        FromFile(path=UserPath(METHOD_FILE), options={"share": 0.5, "at_step": 3}),
    ],
    ids=lambda sparsity: sparsity.kind,
)
def test_every_rank_has_the_same_sparsifier(tokens: Path, tmp_path: Path, sparsity: SparsifierConfig) -> None:
    train(module(Noted, TWO, tmp_path, sparsity), tokens)
    first, second = saved(tmp_path, 0), saved(tmp_path, 1)
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())
    assert (first["embedding.weight"] == 0).float().mean() > 0.4


@pytest.mark.slow  # three trainings, with a process to start for each
def test_an_interrupted_training_of_two_ranks_goes_on_to_the_same_weights(
    tokens: Path, tmp_path: Path
) -> None:
    whole, broken = module(Stops, TWO, tmp_path / "whole"), module(Stops, TWO, tmp_path / "broken")
    expected = train(whole, tokens)
    broken.where = (0, 8)
    with pytest.raises(OSError, match="machine is gone"):
        train(broken, tokens)
    assert (tmp_path / "broken" / "checkpoints" / "last.ckpt").exists()
    assert train(module(Stops, TWO, tmp_path / "broken"), tokens) == expected
    assert all(
        torch.equal(weight, saved(tmp_path / "whole", 1)[name])
        for name, weight in saved(tmp_path / "broken", 1).items()
    )


@pytest.mark.slow
def test_a_rank_that_fails_ends_all(tokens: Path, tmp_path: Path) -> None:
    broken = module(Stops, TWO, tmp_path)
    broken.where = (1, 6)
    with pytest.raises(RuntimeError, match="rank 1 failed with exit status 1"):
        train(broken, tokens)


class Drifts(Noted):
    """One rank loses a weight that the others keep."""

    def on_train_batch_end(self, *args: Any) -> None:
        super().on_train_batch_end(*args)
        if (self.global_rank, self.global_step) == (1, 7):
            weight = self.model.blocks[0].get_parameter("mlp.up.weight").data
            weight[tuple(weight.nonzero()[0])] = 0.0


@pytest.mark.slow
def test_s1_ranks_whose_masks_differ_stop_before_the_next_checkpoint(tokens: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^training: rank 1 has other weights than rank 0 at step 10 \("):
        train(module(Drifts, TWO, tmp_path), tokens)
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 5


@pytest.mark.slow
def test_a_loss_that_is_not_finite_on_one_rank_stops_all_with_the_same_words(
    tokens: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"gradient is nan at step 7: lower trainer.learning_rate"):
        train(module(Poisoned, TWO, tmp_path), tokens)


@pytest.mark.slow
def test_processes_that_someone_else_starts_train_one_model(tmp_path: Path) -> None:
    point = [
        *("experiment=smoke", "evidence=none", "logger=csv", "threads=1"),
        *("corpus.megabytes=1", "corpus.real_fraction=0"),
        *("tokenizer.vocab_size=700", "model.n_layer=1", "model.d_model=32", "model.n_ctx=64"),
        *("sparsity.nonzeros=20000", "trainer.batch_size=8", "trainer.tokens=20000", "trainer.devices=2"),
        *("trainer.precision=float32", "tasks.names=[with_as]", "finder.steps=2"),
    ]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    place |= {"TORCHELASTIC_RUN_ID": "0", "GROUP_RANK": 0, "PYTHONPATH": ROOT}  # what torchrun sets
    started = []
    for local in range(2):
        own = {key: str(value) for key, value in (place | {"RANK": local, "LOCAL_RANK": local}).items()}
        command = [sys.executable, "-m", "sparsity_lab.run", *point, f"hydra.run.dir=logs{local}"]
        started.append(
            subprocess.Popen(
                command,
                cwd=tmp_path,
                env=os.environ | own,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    for process in started:
        said, _ = process.communicate(timeout=180)
        assert process.returncode == 0, said
    ((_, record),) = read_all(tmp_path / "runs" / "single")
    assert record.config["trainer"]["devices"] == 2


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"strategy": "fsdp"}, r"^trainer.strategy: 'fsdp': fsdp cuts tensors .* allowed: auto, ddp$"),
        ({"devices": 3}, r"^trainer: batch_size 8 must be a multiple of devices · num_nodes, 3$"),
    ],
)
def test_what_cannot_be_shared_is_refused(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        validate(TrainerConfig, CONFIG.model_dump(mode="json") | values, "trainer")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told(tokens: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"accelerator": "gpu"})
    with pytest.raises(UserError, match=r"^trainer.accelerator, trainer.devices: .*gpu"):
        train(module(Noted, config, tmp_path), tokens)


def test_several_nodes_need_someone_who_starts_their_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TWO.model_copy(update={"num_nodes": 2})
    with pytest.raises(UserError, match="is 4, but there are 2 processes: start the program once a device"):
        cluster(config)
    for key, value in {"RANK": 3, "WORLD_SIZE": 4, "TORCHELASTIC_RUN_ID": 0, "LOCAL_RANK": 1}.items():
        monkeypatch.setenv(key, str(value))
    found = cluster(config)
    assert (found.global_rank(), found.world_size()) == (3, 4)
