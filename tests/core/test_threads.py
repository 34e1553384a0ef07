"""`threads` of the config limits tokenisation and the generation of text too."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sparsity_lab.core import threads
from sparsity_lab.core.threads import limit_threads, usable_threads
from sparsity_lab.data import corpora, tokenizer
from sparsity_lab.data.corpora import TinyPythonConfig
from sparsity_lab.data.tokenizer import train_bpe


@pytest.fixture(autouse=True)
def _no_limit() -> Iterator[None]:
    limit_threads(None)
    yield
    limit_threads(None)


def test_the_limit_only_lowers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "processors", lambda: 4)
    assert usable_threads() == 4
    limit_threads(2)
    assert usable_threads() == 2
    limit_threads(9)
    assert usable_threads() == 4
    limit_threads(None)
    assert usable_threads() == 4


def test_tokenisation_keeps_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int | None] = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, workers: int | None = None) -> None:
            asked.append(workers)
            super().__init__(workers)

    monkeypatch.setattr(tokenizer, "ThreadPoolExecutor", Pool)
    encoder = train_bpe(["def f(x):\n    return x + 1\n" * 50], 260)
    limit_threads(1)
    assert encoder.encode_batch(["def f", "return"]) == [encoder.encode("def f"), encoder.encode("return")]
    assert asked == [1]


def test_generation_keeps_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def synthetic(seed: int, workers: int) -> Iterator[Any]:
        asked.append(workers)
        return iter(())

    monkeypatch.setattr(corpora, "synthetic", synthetic)
    limit_threads(1)
    TinyPythonConfig(megabytes=24.0, real_fraction=0.0).documents()
    assert asked == [1]
