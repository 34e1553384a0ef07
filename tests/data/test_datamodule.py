"""The data module: batches are the same with workers, after a resume, and in Lightning's own hands."""

import pickle
from pathlib import Path
from typing import Any

import joblib
import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import write_json
from sparsity_lab.data import loader as loader_module
from sparsity_lab.data.datamodule import TokenDataModule
from sparsity_lab.data.loader import StepBatches, TrainBatches
from sparsity_lab.data.packed import TokensMeta, fixed_windows, random_batch, write_tokens


@pytest.fixture(scope="module")
def tokens_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random tokens of a vocabulary of 50."""
    folder = tmp_path_factory.mktemp("tokens")
    ids = np.random.default_rng(0).integers(0, 49, size=4000).tolist()
    meta = TokensMeta(
        vocab_size=50,
        end_of_text=49,
        dtype="uint16",
        train=write_tokens(folder / "train.bin", [ids[:3000]], "uint16", 49),
        validation=write_tokens(folder / "validation.bin", [ids[3000:]], "uint16", 49),
    )
    write_json(folder / "meta.json", meta)
    return folder


def data(folder: Path, **changes: Any) -> TokenDataModule:
    sizes = {"n_ctx": 8, "batch_size": 4, "n_steps": 10, "seed": 3, "validation_windows": 10} | changes
    return TokenDataModule(folder, **sizes)


def test_the_loader_gives_each_steps_batch(tokens_folder: Path) -> None:
    module = data(tokens_folder)
    loader = module.train_dataloader()
    batches = list(loader)
    assert len(loader) == len(batches) == 10
    for step, batch in enumerate(batches):
        assert torch.equal(batch, random_batch(module.train.tokens, 8, 4, 3, step))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # where there is one core
def test_workers_change_nothing(tokens_folder: Path) -> None:
    alone = list(data(tokens_folder).train_dataloader())
    several = list(data(tokens_folder, num_workers=2).train_dataloader())
    assert torch.equal(torch.stack(alone), torch.stack(several))


def test_what_workers_are_given_is_a_few_plain_values(tokens_folder: Path) -> None:
    module = data(tokens_folder)
    batches = StepBatches(tokens_folder, 8, 4, 3)
    first = batches[0]  # the file is mapped now
    pickled = pickle.dumps(batches)
    assert len(pickled) < 1000  # 6000 bytes of tokens are not in it
    assert torch.equal(pickle.loads(pickled)[0], first)
    assert torch.equal(first, random_batch(module.train.tokens, 8, 4, 3, 0))


def test_the_loader_of_a_rank_can_be_pickled_and_keeps_its_share(tokens_folder: Path) -> None:
    shares = [StepBatches(tokens_folder, 8, 5, 3, rank, 2) for rank in range(2)]
    again = [pickle.loads(pickle.dumps(TrainBatches(share, 4))) for share in shares]
    whole = data(tokens_folder, batch_size=5, n_steps=4).train_dataloader()
    for first, second, both in zip(*again, whole, strict=True):
        assert torch.equal(torch.cat([first, second]), both)
        assert len(first) == 3


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_spawned_workers_give_the_same_batches(tokens_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = list(data(tokens_folder, n_steps=3).train_dataloader())
    monkeypatch.setattr(loader_module, "_start_method", lambda: "spawn")
    module = data(tokens_folder, num_workers=1, n_steps=3)
    monkeypatch.setattr(module, "trainer", Unpicklable())
    assert torch.equal(torch.stack(list(module.train_dataloader())), torch.stack(alone))


def test_workers_start_within_joblibs_processes(tokens_folder: Path) -> None:
    batches = StepBatches(tokens_folder, 8, 4, 3)

    def in_a_job(num_workers: int) -> list[list[list[int]]]:
        return [batch.tolist() for batch in TrainBatches(batches, 3, num_workers)]

    with joblib.parallel_config("loky"):
        (found,) = joblib.Parallel(n_jobs=2)([joblib.delayed(in_a_job)(1)])
    assert found == in_a_job(0)


@pytest.mark.parametrize(
    ("n_steps", "told"), [(93, []), (94, ["3,008 tokens, the corpus has 3,001: it is seen 1.0 times"])]
)
def test_more_tokens_than_there_are_is_said(
    tokens_folder: Path, caplog: pytest.LogCaptureFixture, n_steps: int, told: list[str]
) -> None:
    data(tokens_folder, n_steps=n_steps)
    assert [record.getMessage() for record in caplog.records] == [
        f"trainer.tokens: training reads {line}" for line in told
    ]


def test_epochs_are_counted_in_tokens_trained_on(
    tokens_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data(tokens_folder, n_steps=250, batch_size=8, n_ctx=16)
    (record,) = caplog.records
    assert record.getMessage().endswith("32,000 tokens, the corpus has 3,001: it is seen 10.7 times")


@pytest.mark.parametrize("split", ["training", "validation"])
def test_a_split_without_a_window_is_told_before_training(tokens_folder: Path, split: str) -> None:
    n_ctx = {"training": 3001, "validation": 1001}[split]
    with pytest.raises(
        UserError, match=rf"^model\.n_ctx: {n_ctx}: too long, the {split} split has {n_ctx} tok"
    ):
        data(tokens_folder, n_ctx=n_ctx)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_loader_goes_on_where_it_stopped(tokens_folder: Path, num_workers: int) -> None:
    whole = list(data(tokens_folder).train_dataloader())
    first = data(tokens_folder, num_workers=num_workers).train_dataloader()
    seen = [batch for batch, _ in zip(first, range(4), strict=False)]
    # zip has taken a fifth batch before it noticed that the range had ended
    state = first.state_dict()
    assert state == {"step": 5}
    second = data(tokens_folder, num_workers=num_workers).train_dataloader()
    second.load_state_dict(state)
    assert len(second) == 10
    assert torch.equal(torch.stack(seen + whole[4:5] + list(second)), torch.stack(whole))


def test_validation_windows_are_fixed_and_complete(tokens_folder: Path) -> None:
    module = data(tokens_folder)
    loader = module.val_dataloader()
    batches = list(loader)
    assert len(loader) == len(batches) == 3
    assert torch.equal(torch.cat(batches), fixed_windows(module.validation.tokens, 8, 10))
    assert torch.equal(torch.cat(list(loader)), torch.cat(batches))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("batch_size", r"trainer\.batch_size: 0: "),
        ("validation_windows", r"trainer\.validation_windows: 0: "),
        ("n_ctx", r"model\.n_ctx: 0: "),
        ("n_steps", r"trainer\.tokens: 0 steps: "),
    ],
)
def test_a_size_below_one_is_named_by_its_key(tokens_folder: Path, name: str, told: str) -> None:
    with pytest.raises(UserError, match=rf"^{told}must be at least 1$"):
        data(tokens_folder, **{name: 0})


class Unpicklable:
    """Stands for the trainer, which a worker can't be sent."""

    global_rank, world_size = 0, 1

    def __reduce__(self) -> str:
        raise TypeError("cannot pickle 'generator' object")


class Recorder(pl.LightningModule):
    """Keeps the batches it trains on, and stops the run when told."""

    def __init__(self, stop_after: int = -1) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[torch.Tensor] = []
        self.stop_after = stop_after

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        if len(self.seen) == self.stop_after:
            raise KeyError("interrupted")
        self.seen.append(batch)
        return (self.weight * batch.float().mean()).sum()

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        assert batch.shape[1] == 9

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder: Path, where: Path, model: Recorder, ckpt_path: str | None = None) -> Recorder:
    saver = pl.callbacks.ModelCheckpoint(dirpath=where, every_n_train_steps=2, save_last=True)
    trainer = pl.Trainer(
        max_steps=10,
        accelerator="cpu",
        logger=False,
        callbacks=[saver],
        val_check_interval=3,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=where,
    )
    trainer.fit(model, datamodule=data(folder), ckpt_path=ckpt_path)
    assert trainer.global_step == 10
    return model


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # Lightning 2.6 on torch 2.13
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty:UserWarning")  # the resumed one's
def test_lightning_resumes_as_if_never_interrupted(tokens_folder: Path, tmp_path: Path) -> None:
    whole = fit(tokens_folder, tmp_path / "whole", Recorder())
    assert len(whole.seen) == 10
    first = Recorder(stop_after=5)
    with pytest.raises(KeyError, match=r"interrupted"):
        fit(tokens_folder, tmp_path / "cut", first)
    second = fit(tokens_folder, tmp_path / "cut", Recorder(), str(tmp_path / "cut" / "last.ckpt"))
    assert torch.equal(torch.stack(first.seen[:4] + second.seen), torch.stack(whole.seen))
    assert torch.equal(second.weight, whole.weight)
