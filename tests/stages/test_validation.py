"""A model is measured by a stage of its own: other windows measure it anew, and train nothing."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from micro import SMALL, small_model, write_tokens_folder

from sparsity_lab.config import RunConfig, from_hydra
from sparsity_lab.core import metrics
from sparsity_lab.core.files import read_json, write_json
from sparsity_lab.core.stage import ABOUT
from sparsity_lab.data.validation_text import validation_text
from sparsity_lab.model.checkpoints import save_model
from sparsity_lab.stages import model as model_stage
from sparsity_lab.stages.validation import VALIDATION, validation
from sparsity_lab.sweep.sweeper import folder_of, register_sweeper
from sparsity_lab.training.validation import validate_model

register_sweeper()


def config_of(*overrides: str) -> RunConfig:
    small = [f"model.n_ctx={SMALL.n_ctx}", "trainer.batch_size=8", "trainer.precision=float32", *overrides]
    with initialize_config_dir(str(folder_of("conf")), version_base="1.3"):
        return from_hydra(compose("config", small))


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    folder = write_tokens_folder(tmp_path / "tokens" / "made")
    write_json(folder / ABOUT, {"files": {}})
    return folder


def test_the_final_windows_are_no_input_of_the_model(tokens: Path, tmp_path: Path) -> None:
    def folder(*overrides: str) -> Path:
        return model_stage._stage(config_of(*overrides), tokens, None, lambda path: None).folder(tmp_path)

    assert folder() == folder("trainer.final_windows=3")
    assert folder() != folder("trainer.eps=0.2")


def test_other_windows_are_measured_anew_and_the_same_once(tokens: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    model, folder = small_model(), tmp_path / "models" / "made"
    save_model(model, folder)
    found = {
        count: validation(config_of(f"trainer.final_windows={count}"), tokens, folder, tmp_path)
        for count in (5, 20, 10**6)
    }
    assert len(set(found.values())) == 3
    assert validation(config_of("trainer.final_windows=20"), tokens, folder, tmp_path) == found[20]
    for count, path in found.items():
        measured = read_json(path / VALIDATION)
        text = validation_text(tokens, SMALL.n_ctx, count)
        assert measured[metrics.VALIDATION_WINDOWS.name] == len(text.windows_wc) == min(count, 83)
        for name, value in validate_model(model, text, 8).items():
            assert measured[name] == pytest.approx(value, rel=1e-6), name
        assert measured[metrics.WEIGHTS.name] > measured[metrics.MODEL_NONZEROS.name] * 0.9 > 0
