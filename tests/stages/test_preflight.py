"""Sizes that do not fit are told before any work, and so is a variable that W&B refuses."""

import json
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from micro import small_model

from sparsity_lab.config import RunConfig, from_hydra
from sparsity_lab.core.errors import UserError
from sparsity_lab.data.tokenizer import train_bpe
from sparsity_lab.data.tokenizer_folder import write_pair
from sparsity_lab.importers.released import write_released
from sparsity_lab.model.checkpoints import save_model
from sparsity_lab.model.transformer import ModelConfig, Transformer
from sparsity_lab.stages import pipeline
from sparsity_lab.stages.preflight import check_inputs
from sparsity_lab.sweep.sweeper import folder_of, register_sweeper

register_sweeper()
TEXTS = ["def f(x):\n    return x + 1\n" * 50, "for name in names:\n    print(name)\n" * 50]


def config_of(*overrides: str) -> RunConfig:
    with initialize_config_dir(str(folder_of("conf")), version_base="1.3"):
        return from_hydra(compose("config", ["logger=csv", *overrides]))


def told(*overrides: str) -> str:
    with pytest.raises(UserError) as raised:
        check_inputs(config_of(*overrides))
    return str(raised.value)


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A released folder whose tokenizer has 270 tokens, and whose model knows 260."""
    shape = ModelConfig(n_layer=1, d_model=16, n_ctx=64, d_head=8, bigram="learned")
    torch.manual_seed(0)
    write_released(Transformer(shape, 260), tmp_path / "csp")
    write_pair(train_bpe(TEXTS, 270), tmp_path / "csp")
    return tmp_path / "csp"


def test_a_vocabulary_larger_than_the_models(released: Path, tmp_path: Path) -> None:
    given = ["experiment=released", f"model.path={released}", f"root={tmp_path / 'out'}"]
    expected = f"tokenizer: 270 tokens, but {released} knows 260"
    assert told(*given, "model.n_ctx=64") == expected
    with pytest.raises(UserError, match="270 tokens"):
        pipeline.run(config_of(*given, "model.n_ctx=64"), [])
    assert not (tmp_path / "out" / "corpora").exists()
    assert told(*given) == "model.n_ctx: 128: the model's context is 64"


@pytest.mark.parametrize(("kind", "context"), [("gpt2", "n_positions"), ("llama", "max_position_embeddings")])
def test_a_folder_of_transformers(released: Path, tmp_path: Path, kind: str, context: str) -> None:
    given = [f"experiment={kind}", f"model.path={tmp_path}", f"tokenizer.path={released}"]
    assert told(*given) == f"{tmp_path}: no config.json, so not a folder of a transformers model"
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 269, context: 1024}))
    assert told(*given) == f"tokenizer: 270 tokens, but {tmp_path} knows 269"
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 270, context: 100}))
    assert told(*given) == "model.n_ctx: 128: the model's context is 100"
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 270, context: 1024}))
    check_inputs(config_of(*given))


def test_a_reference_model_of_another_vocabulary(released: Path, tmp_path: Path) -> None:
    model = small_model()
    save_model(model, tmp_path / "model")
    given = ["reference=folder", f"reference.folder={tmp_path / 'model'}"]
    size = model.vocab_size
    assert told(*given) == (
        f"reference.folder: {tmp_path / 'model'}: a vocabulary of {size}; the tokenizer has 2048"
    )
    assert told("reference=folder", "reference.folder=nowhere").endswith("model.json: no such file")
    given = ["reference=released", f"reference.model.path={released}", "reference.model.n_ctx=64"]
    assert told(*given, "tokenizer.vocab_size=258") == (
        f"reference.model.path: {released}: a vocabulary of 260; the tokenizer has 258"
    )


def test_a_wrong_switch_of_the_kernels_is_told_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARSITY_LAB_KERNELS", "junk")
    with pytest.raises(UserError, match=r"^SPARSITY_LAB_KERNELS: 'junk': allowed: on, off$"):
        pipeline.run(config_of(f"root={tmp_path / 'out'}"), [])
    assert not (tmp_path / "out").exists()
