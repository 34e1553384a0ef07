"""The split: training and validation hold the same mixture, whatever the documents' sizes."""

import random
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from sparsity_lab.config import from_hydra
from sparsity_lab.core.files import read_json
from sparsity_lab.data import corpora
from sparsity_lab.data.corpora import TinyPythonConfig
from sparsity_lab.data.documents import Document
from sparsity_lab.data.packed import open_tokens, read_components, read_meta
from sparsity_lab.data.prepare import COMPOSITION, corpus_folder, read_documents, tokens_folder
from sparsity_lab.data.split import VALIDATION_FLOOR, in_validation, validation_share
from sparsity_lab.data.tokenizers import BpeConfig
from sparsity_lab.sweep.sweeper import register_sweeper, register_sweeps

ROOT = Path(__file__).parents[2]
POINTS = 0.005  # half a percentage point


def divided(documents: list[tuple[str, int, int]], share: float) -> list[bool]:
    components, sizes, hashes = zip(*documents, strict=True)
    return list(in_validation(list(components), list(sizes), list(hashes), share))


def shares(composition: dict[str, dict[str, int]], component: str) -> list[float]:
    return [part.get(component, 0) / sum(part.values()) for part in composition.values()]


def shipped() -> list[TinyPythonConfig]:
    """Every corpus of generated programs that an experiment or a sweep names, each once."""
    register_sweeps()
    register_sweeper()
    experiments = [f"experiment={path.stem}" for path in (ROOT / "conf/experiment").glob("*.yaml")]
    sweeps = [f"+sweep={path.stem}" for path in (ROOT / "sweeps").glob("*.yaml")]
    found: dict[str, TinyPythonConfig] = {}
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for override in ([], *([name] for name in sorted(experiments + sweeps))):
            composed = compose("config", list(override))
            if composed.corpus.kind == "tinypython":
                corpus = TinyPythonConfig.model_validate(dict(composed.corpus) | {
                    "real_packages": tuple(composed.corpus.real_packages)
                })  # fmt: skip
                found[corpus.model_dump_json()] = corpus
    return list(found.values())


def stand_ins(seed: int, start: int, count: int) -> Iterator[str]:
    """Texts of a program's length, much faster than the grammar: the split sees sizes and hashes alone."""
    for i in range(start, start + count):
        rng = random.Random(f"{seed} {i}")
        yield f"# {rng.random()}\n" + "x = 1\n" * rng.randrange(50, 300)


@pytest.mark.parametrize("config", shipped(), ids=lambda config: f"{config.megabytes:g} MB")
def test_every_shipped_corpus_has_the_same_mixture_on_both_sides(
    config: TinyPythonConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpora.tinypython, "documents", stand_ins)
    monkeypatch.setattr(corpora, "SMALL", float("inf"))  # no workers, which would not be patched
    composition = read_json(corpus_folder(config, tmp_path) / COMPOSITION)
    train, validation = shares(composition, "real")
    assert abs(train - validation) < POINTS
    assert train == pytest.approx(config.real_fraction, abs=POINTS)
    assert sum(composition["validation"].values()) > 0.095 * min(
        10 * VALIDATION_FLOOR, 1e6 * config.megabytes
    )


def test_a_component_of_no_known_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TinyPythonConfig, "documents", lambda corpus: iter([Document("x", "0", "poems")]))
    with pytest.raises(ValueError, match="0: unknown component 'poems'; allowed: grammar, real, text"):
        corpus_folder(TinyPythonConfig(real_fraction=0), tmp_path)


@pytest.mark.parametrize("fraction", [0.05, 0.5, 1.0])
def test_the_mixture_is_the_same_in_bytes_and_in_tokens(fraction: float, tmp_path: Path) -> None:
    corpus = corpus_folder(TinyPythonConfig(megabytes=1.5, real_fraction=fraction), tmp_path)
    train, validation = shares(read_json(corpus / COMPOSITION), "real")
    assert abs(train - validation) < POINTS
    assert train == pytest.approx(fraction, abs=POINTS)
    tokens = tokens_folder(corpus, BpeConfig(vocab_size=512), tmp_path)
    meta = read_meta(tokens)
    names, component_n = read_components(tokens)
    assert names == meta.components == (("grammar", "real") if fraction < 1 else ("real",))
    assert len(component_n) == len(open_tokens(tokens, "validation"))
    for i, name in enumerate(names):
        assert (component_n == i).sum() == meta.validation.components[name]
    of_train, of_validation = (
        part.components["real"] / part.tokens for part in (meta.train, meta.validation)
    )
    assert abs(of_train - of_validation) < 0.05  # real text's tokens per byte vary from piece to piece


def test_each_validation_token_knows_its_component(tmp_path: Path) -> None:
    corpus = corpus_folder(TinyPythonConfig(megabytes=0.2, real_fraction=0.4), tmp_path)
    tokens = tokens_folder(corpus, BpeConfig(vocab_size=300), tmp_path)
    names, component_n = read_components(tokens)
    packed = open_tokens(tokens, "validation")
    ends = [0, *((packed.tokens == packed.end_of_text).nonzero()[0] + 1).tolist()]
    documents = list(read_documents(corpus, "validation"))
    assert len(documents) == len(ends) - 1
    for document, start, end in zip(documents, ends, ends[1:], strict=False):
        assert {names[i] for i in component_n[start:end]} == {document.component}


@pytest.mark.parametrize(("seed", "share"), list(product(range(4), (0.02, 0.1, 0.5))))
def test_every_component_and_size_is_on_both_sides(seed: int, share: float) -> None:
    """Sizes over three decades, a tenth of the text in the rarer component."""
    rng = random.Random(seed)
    documents: list[tuple[str, int, int]] = [
        (rng.choice("aaaaaaaaab"), int(10 ** rng.uniform(2, 4)), rng.getrandbits(64)) for _ in range(4000)
    ]
    chosen = divided(documents, share)
    for component in "ab":
        sizes = [
            (size, is_in)
            for (name, size, _), is_in in zip(documents, chosen, strict=True)
            if name == component
        ]
        held = sum(size for size, is_in in sizes if is_in)
        assert held == pytest.approx(share * sum(size for size, _ in sizes), abs=100)
        for least, most in ((0, 1000), (1000, 5000)):
            among = [is_in for size, is_in in sizes if least <= size < most]
            assert sum(among) / len(among) == pytest.approx(share, abs=0.06)


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
@pytest.mark.parametrize("sizes", [[10, 10], [1, 10_000], [10_000, 1], [5, 5, 5]])
def test_each_split_gets_a_document(sizes: list[int], share: float) -> None:
    chosen = in_validation(["a"] * len(sizes), sizes, list(range(len(sizes))), share)
    assert set(chosen) == {False, True}


def test_the_split_follows_the_hashes_and_not_the_order() -> None:
    rng = random.Random(0)
    documents: list[Any] = [("a", rng.randrange(100, 5000), rng.getrandbits(64)) for _ in range(500)]
    chosen = divided(documents, 0.1)
    held = {document for document, is_in in zip(documents, chosen, strict=True) if is_in}
    rng.shuffle(documents)
    again = divided(documents, 0.1)
    assert held == {document for document, is_in in zip(documents, again, strict=True) if is_in}


@pytest.mark.parametrize(
    ("size", "share", "expected"),
    [(100_000_000, 0.02, 0.02), (25_000_000, 0.02, 0.08), (1_000_000, 0.02, 0.1), (1_000_000, 0.3, 0.3)],
)
def test_a_small_corpus_gives_a_larger_share(size: int, share: float, expected: float) -> None:
    assert validation_share(size, share) == pytest.approx(expected)


def test_from_hydra_accepts_all_real_source() -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = from_hydra(compose("config", ["corpus.real_fraction=1", "corpus.real_packages=null"]))
    assert isinstance(config.corpus, TinyPythonConfig)
    assert (config.corpus.real_fraction, config.corpus.real_packages) == (1, None)
