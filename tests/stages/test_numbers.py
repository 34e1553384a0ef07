"""A number that a run cannot use as given is told with the number that it uses, or refused."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from micro import VOCABULARY, write_tokens_folder

from sparsity_lab.config import RunConfig, from_hydra
from sparsity_lab.core.errors import UserError
from sparsity_lab.data.corpora import TinyPythonConfig
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.results.record import Replaced
from sparsity_lab.stages.numbers import replaced_numbers, tell_replaced
from sparsity_lab.sweep.sweeper import folder_of, register_sweeper
from sparsity_lab.training.sparsity import make_sparsifier

register_sweeper()
FITS = [
    *("model.d_model=32", "model.n_ctx=16", "tokenizer.vocab_size=257", "corpus.validation_share=0.5"),
    *(
        "trainer.batch_size=4",
        "trainer.tokens=64000",
        "trainer.validation_windows=32",
        "trainer.final_windows=32",
        "sparsity.nonzeros=20000",
    ),
]


def config_of(*overrides: str) -> RunConfig:
    with initialize_config_dir(str(folder_of("conf")), version_base="1.3"):
        return from_hydra(compose("config", [*FITS, *overrides]))


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokens_folder(tmp_path_factory.mktemp("tokens"))


def replaced(tokens: Path, *overrides: str) -> dict[str, Replaced]:
    return {one.key: one for one in replaced_numbers(config_of(*overrides), tokens)}


@pytest.mark.parametrize("kind", ["magnitude", "random_mask"])
@pytest.mark.parametrize("nonzeros", [3000, 20000])
def test_the_nonzeros_used_are_those_that_projection_leaves(tokens: Path, kind: str, nonzeros: int) -> None:
    overrides = [f"sparsity={kind}", f"sparsity.nonzeros={nonzeros}"]
    config = config_of(*overrides)
    model = Transformer(config.model, VOCABULARY)  # type: ignore[arg-type]
    for weight, _ in model.sparse_weights().values():
        torch.nn.init.normal_(weight)
    make_sparsifier(config.sparsity, model, 10, 0).after_step(model, 10)
    left = sum(int((weight != 0).sum()) for weight, _ in model.sparse_weights().values())
    found = replaced(tokens, *overrides).get("sparsity.nonzeros")
    assert left == (nonzeros if found is None else found.used)
    if nonzeros == 3000:
        assert found is not None
        assert found.used > 3100
        assert "sparsity.at_least=4 weights for each neuron" in found.reason


def test_a_kept_fraction_below_what_at_least_needs_is_told(tokens: Path) -> None:
    found = replaced(tokens, "sparsity.nonzeros=null", "sparsity.kept_fraction=0.01")[
        "sparsity.kept_fraction"
    ]
    assert found.asked == 0.01
    assert found.used > 0.1
    assert "sparsity.at_least=4" in found.reason


@pytest.mark.parametrize(
    ("overrides", "key", "used"),
    [
        (
            ["trainer.validation_windows=1000"],
            "trainer.validation_windows",
            62,
        ),  # of 16 tokens; there are 1,002
        (["trainer.final_windows=1000"], "trainer.final_windows", 62),
        (["evidence.text_windows=40"], "evidence.text_windows", 32),
        (["trainer.tokens=100"], "trainer.tokens", 64),
        (["trainer.tokens=200"], "trainer.validations", 3),
        (["trainer.tokens=640", "snapshots.fractions=[0.04,1.0]"], "snapshots.fractions", 0.1),
        (["tasks.n_train_pairs=8"], "finder.pairs", 8),
        (["finder=gradient", "tasks.n_train_pairs=8"], "finder.pairs", 8),
        (["tasks.n_test_pairs=8"], "evidence.pairs", 8),
        (
            ["reference=trained", "bridge=default", "steering=default", "tasks.n_test_pairs=8"],
            "steering.pairs",
            8,
        ),
        (["model.activation_fraction=0.05"], "model.activation_fraction", 1 / 32),
        (["corpus.validation_share=0.01"], "corpus.validation_share", 1002 / 4003),
    ],
)
def test_a_number_that_cannot_be_met_is_told(
    tokens: Path, caplog: pytest.LogCaptureFixture, overrides: list[str], key: str, used: float
) -> None:
    assert key not in replaced(tokens)
    found = replaced(tokens, *overrides)
    assert found[key].used == pytest.approx(used)
    tell_replaced(tuple(found.values()))
    (line,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith(f"{key}: ")]
    assert "asked" in line
    assert found[key].reason in line


def test_a_file_of_pairs_that_has_fewer_than_asked_is_told(tokens: Path, tmp_path: Path) -> None:
    pair = {"negative": "b", "answers": ["x", "y"]}
    lines = [json.dumps({"positive": f"a{i}", **pair, "negative": f"b{i}"}) for i in range(40)]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    found = replaced(tokens, f"tasks.path={tmp_path / 'mine.jsonl'}")
    assert (found["tasks.n_train_pairs"].asked, found["tasks.n_train_pairs"].used) == (1024, 20)
    assert found["tasks.n_select_pairs"].used == found["tasks.n_test_pairs"].used == 10
    assert "task mine has no more pairs" in found["tasks.n_test_pairs"].reason


def test_a_validation_share_that_nobody_asked_for_is_not_told(tokens: Path) -> None:
    """The tiny corpus has a share of a quarter."""
    default = TinyPythonConfig().validation_share
    assert "corpus.validation_share" not in replaced(tokens, f"corpus.validation_share={default}")
    assert config_of("~corpus.validation_share").corpus.validation_share == default


def test_a_difference_too_small_to_matter_is_recorded_only(
    tokens: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = replaced(tokens, "trainer.tokens=64001")
    assert (found["trainer.tokens"].asked, found["trainer.tokens"].used) == (64001, 64000)
    with caplog.at_level(logging.INFO):
        tell_replaced(tuple(found.values()))
    assert "trainer.tokens" not in caplog.text


def test_an_imported_model_is_asked_for_its_own_numbers_only(tokens: Path) -> None:
    overrides = ["model=gpt2", "model.path=x", "sparsity=none", "trainer.validation_windows=100"]
    plain: list[Any] = [value for value in FITS if not value.startswith(("model.", "sparsity."))]
    with initialize_config_dir(str(folder_of("conf")), version_base="1.3"):
        config = from_hydra(compose("config", [*plain, *overrides]))
    keys = {one.key for one in replaced_numbers(config, tokens)}
    assert keys == {"trainer.validation_windows", "trainer.final_windows", "evidence.text_windows"}


def test_less_than_one_step_of_training_is_refused() -> None:
    with pytest.raises(UserError, match=r"trainer.tokens: 63: fewer than one step; .* model.n_ctx = 64$"):
        config_of("trainer.tokens=63")
