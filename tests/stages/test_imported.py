"""Models that exist already: the program on a released folder; a GPT-2 and a Llama as stages; circuits."""

from pathlib import Path
from typing import Any

import numpy as np
import program
import pytest
import torch
from hydra import compose, initialize_config_dir
from micro import question, quick_masks, quick_pruning
from torch.nn.functional import cross_entropy

from sparsity_lab.circuits.evaluator import TaskData
from sparsity_lab.circuits.nodes import mean_activations
from sparsity_lab.circuits.search import find_circuits, make_evaluator
from sparsity_lab.config import RunConfig, from_hydra
from sparsity_lab.core import metrics
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json
from sparsity_lab.core.run_folder import RunFolder
from sparsity_lab.data.prepare import prepare
from sparsity_lab.data.tinypython import documents
from sparsity_lab.data.tokenizer import train_bpe
from sparsity_lab.data.tokenizer_folder import write_pair
from sparsity_lab.data.validation_text import ValidationText
from sparsity_lab.importers.released import read_released, write_released
from sparsity_lab.model.checkpoints import load_model
from sparsity_lab.model.transformer import ModelConfig, Transformer
from sparsity_lab.results.metrics_log import MetricsLog
from sparsity_lab.results.record import read_record
from sparsity_lab.stages.imported import imported_model
from sparsity_lab.stages.opened import open_folder
from sparsity_lab.stages.validation import VALIDATION, validation
from sparsity_lab.sweep.sweeper import folder_of, register_sweeper
from sparsity_lab.training.validation import validate_model

SMALL = [
    *("logger=csv", "corpus.megabytes=0.3", "corpus.real_fraction=0", "model.n_ctx=32", "threads=1"),
    *("trainer.validation_windows=8", "tasks.names=[single_double_quote,with_as]", "tasks.n_train_pairs=16"),
    *("tasks.n_select_pairs=16", "tasks.n_test_pairs=16", "finder.steps=5", "pruning.target=0.75"),
    "pruning.targets=[0.75]",
]
LITTLE_EVIDENCE = [
    *("evidence.controls=false", "evidence.pairs=4", "evidence.draws=1"),
    *("evidence.binarisation_steps=2", "evidence.text_windows=4"),
]
register_sweeper()


def config_of(*overrides: str) -> RunConfig:
    with initialize_config_dir(str(folder_of("conf")), version_base="1.3"):
        return from_hydra(compose("config", [*overrides, *SMALL]))


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A released folder: a random model that writes what it likes, and the tokenizer that it was made for."""
    folder = tmp_path / "csp"
    tokenizer = train_bpe(documents(0, 0, 60), 400)
    torch.manual_seed(0)
    shape = ModelConfig(n_layer=1, d_model=16, n_ctx=128, d_head=8, activation_fraction=0.5, bigram="learned")
    write_released(Transformer(shape, 400), folder)
    write_pair(tokenizer, folder)
    return folder


@pytest.mark.slow
def test_the_program_bridges_to_a_released_model(released: Path, tmp_path: Path) -> None:
    own = ["reference=released", "reference.model.path=csp", "reference.model.n_ctx=32", "tokenizer=folder"]
    sparse = ["model.n_layer=1", "model.d_model=32", "sparsity.nonzeros=20000", "bridge=default"]
    quick = ["tokenizer.path=csp", "trainer.tokens=4096", "evidence=none", "root=out"]
    running = program.start(tmp_path, [*own, *sparse, *quick, *SMALL])
    assert running.end() == 0, running.said()
    (folder,) = (tmp_path / "out" / "single").glob("bridged-*")
    assert read_record(folder).metrics[metrics.REFERENCE_LOSS.name] > 1
    theirs, ours = read_released(released).state_dict(), load_model(RunFolder(folder).reference).state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


def test_the_program_prunes_tasks_on_a_released_folder(released: Path, tmp_path: Path) -> None:
    command = ["experiment=released", "model.path=csp", "root=out", *SMALL, *LITTLE_EVIDENCE]
    for _ in range(2):  # the second time from the stages' folders
        running = program.start(tmp_path, command)
        assert running.end() == 0, running.said()
    (folder,) = (tmp_path / "out" / "single").glob("released-*")
    assert folder.name.startswith("released-csp-")
    record = read_record(folder)
    assert {task.task for task in record.tasks} == {"single_double_quote", "with_as"}
    asked = {task.task for task in record.tasks if task.status != "not_askable"}
    assert asked == {"single_double_quote"}  # to a tokenizer as small as this one, " as" is two tokens
    assert record.metrics[metrics.VALIDATION_LOSS.name] > 1
    assert (folder / "run.png").stat().st_size > 1000
    theirs, ours = read_released(released).state_dict(), load_model(folder / "model").state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    assert (folder / "metrics.csv").read_text().count("\n") == 2


def test_mistakes_are_told(released: Path, tmp_path: Path) -> None:
    config = config_of("experiment=released", f"model.path={released}", f"root={tmp_path}")
    tokens = prepare(config.corpus, config.tokenizer, tmp_path)
    torch.manual_seed(0)
    small = Transformer(ModelConfig(n_layer=1, d_model=16, n_ctx=16, bigram="none"), 300)
    write_released(small, released)
    with pytest.raises(UserError, match=r"model\.n_ctx: 32: the model's context is 16"):
        imported_model(config, tokens, tmp_path, lambda folder: [])
    write_released(Transformer(small.config.model_copy(update={"n_ctx": 32}), 300), released)
    with pytest.raises(UserError, match=r"tokenizer: 400 tokens, but .*csp knows 300"):
        imported_model(config, tokens, tmp_path, lambda folder: [])
    away = config_of("experiment=released", "model.path=nowhere", f"root={tmp_path}")
    with pytest.raises(UserError, match=r"model\.path: nowhere: no such folder"):
        imported_model(away, tokens, tmp_path, lambda folder: [])


def save_model_of(kind: str, folder: Path, vocab_size: int, n_ctx: int) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    common: Any = {"vocab_size": vocab_size, "bos_token_id": None, "eos_token_id": None}
    model: Any
    if kind == "gpt2":
        shape: Any = {"n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": n_ctx}
        model = GPT2LMHeadModel(GPT2Config(**shape, **common))
    else:
        shape = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
        widths: Any = {"hidden_size": 16, "intermediate_size": 24, "max_position_embeddings": n_ctx}
        model = LlamaForCausalLM(LlamaConfig(**shape, **widths, **common))
    model.eval().save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_folder_of_transformers_is_a_model_stage(tmp_path: Path, kind: str) -> None:
    library = save_model_of(kind, tmp_path / "tiny", 400, 64)
    write_pair(train_bpe(documents(0, 0, 60), 400), tmp_path / "tiny")
    config = config_of(f"experiment={kind}", f"model.path={tmp_path / 'tiny'}", f"root={tmp_path}")
    tokens = prepare(config.corpus, config.tokenizer, tmp_path)
    folder, is_new = imported_model(config, tokens, tmp_path, lambda folder: [MetricsLog(folder)])
    assert is_new
    assert imported_model(config, tokens, tmp_path, lambda folder: []) == (folder, False)
    ids = torch.randint(400, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(load_model(folder)(ids), library(ids).logits, rtol=0, atol=1e-4)
    windows = torch.randint(400, (5, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = cross_entropy(library(windows[:, :-1]).logits.flatten(0, 1), windows[:, 1:].flatten())
    text = ValidationText(windows, np.zeros((5, 8), np.uint8), ("",))
    found = validate_model(load_model(folder), text, batch_size=3)  # of 3 rows and of 2
    assert found[metrics.VALIDATION_LOSS.name] == pytest.approx(expected.item(), abs=1e-5)
    counted = {metrics.WEIGHTS.name, metrics.MODEL_NONZEROS.name, metrics.VALIDATION_WINDOWS.name}
    measured = validation(config, tokens, folder, tmp_path)
    assert read_json(measured / VALIDATION).keys() >= found.keys() | counted


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_circuits_are_pruned_in_a_model_of_transformers(tmp_path: Path, kind: str) -> None:
    """One that `transformers` trained on a task of two answers, until it knows them."""
    library = save_model_of(kind, tmp_path, 11, 8)
    optimizer = torch.optim.Adam(library.parameters(), lr=0.01)
    train = question(64)
    answers_b = train.answers_b2[torch.arange(128), train.label_b]
    for _ in range(60):
        loss = cross_entropy(library(train.tokens_bt).logits[:, -1], answers_b)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    library.save_pretrained(tmp_path)
    model = open_folder(tmp_path).model
    means_n = mean_activations(model, [train.tokens_bt])
    data = TaskData(train=question(32, 1), select=question(32, 2), test=question(32, 3))
    finder, pruning = quick_masks(), quick_pruning()  # raw: a scale can make an answer of rounding errors
    evaluator = make_evaluator(model, means_n, data, finder, pruning)
    assert evaluator.unpruned()[0].raw_loss < 0.15
    assert evaluator.select_loss(torch.zeros(len(means_n), dtype=torch.bool)) > 0.15
    circuits = find_circuits(evaluator, "question", kind, finder, pruning).circuits
    found = next(circuit for circuit in circuits if circuit.target == 0.15)
    assert 0 < len(found.nodes) < len(means_n)
    assert found.edges
    assert found.test.raw_loss < 0.3
    assert found.test.accuracy == 1
