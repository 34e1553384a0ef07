"""The kinds of corpus, and the default one, `tinypython`: generated programs mixed with real source.

Real source comes from the interpreter's standard library. The two kinds alternate in a fixed proportion of
bytes, so that every part of the corpus holds both (Gao et al. 2025, App. A.2).
"""

import hashlib
import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import chain, count
from typing import Annotated, Any, Literal

from pydantic import Field

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.metrics import GRAMMAR
from sparsity_lab.core.signals import begin_worker
from sparsity_lab.core.threads import usable_threads
from sparsity_lab.data import tinypython
from sparsity_lab.data.documents import MEGABYTE, Corpus, Document
from sparsity_lab.data.folder import FolderConfig
from sparsity_lab.data.huggingface import HuggingFaceConfig
from sparsity_lab.data.python_source import (
    PIECE,
    STANDARD_LIBRARY,
    PythonSourceConfig,
    installed,
    inventory,
    source_files,
)

CHUNK = 512  # documents per unit of a worker's work
SMALL = 4  # megabytes below which starting workers does not pay off
FINGERPRINT = 500  # documents that are hashed to identify the grammar's version


class TinyPythonConfig(Corpus):
    """Programs from the grammar of `tinypython.py`, mixed with real source."""

    kind: Literal["tinypython"] = "tinypython"
    seed: int = Field(default=0, ge=0)
    megabytes: float = Field(default=24.0, gt=0)
    real_fraction: float = Field(default=0.05, ge=0, le=1)
    """Share of bytes from real source; 1 leaves no generated programs."""
    real_packages: tuple[str, ...] | None = (STANDARD_LIBRARY,)
    """Distributions that real source comes from; `python` is the standard library, None is all of them."""
    validation_share: float = Field(default=0.085, gt=0, lt=1)

    def identity(self) -> dict[str, Any]:
        """Return the config, a hash of the grammar's output, and the inventory of the real source."""
        identity = self.model_dump(mode="json")
        if self.real_fraction < 1:
            written = "\0".join(tinypython.documents(self.seed, 0, FINGERPRINT))
            identity["grammar"] = hashlib.sha256(written.encode("utf-8")).hexdigest()
        if self.real_fraction:
            identity["piece"] = PIECE
            identity["inventory"] = inventory(installed(self.real_packages))
        return identity

    def documents(self) -> Iterator[Document]:
        """Yield `megabytes` of the mixture."""
        workers = usable_threads() if self.megabytes >= SMALL else 1
        real = source_files(installed(self.real_packages)) if self.real_fraction else iter(())
        return mix(synthetic(self.seed, workers), real, self.real_fraction, self.megabytes * MEGABYTE)


CorpusConfig = Annotated[
    TinyPythonConfig | PythonSourceConfig | FolderConfig | HuggingFaceConfig, Field(discriminator="kind")
]


def mix(
    synthetic: Iterable[Document], real: Iterable[Document], real_fraction: float, size: float
) -> Iterator[Document]:
    """Yield `size` bytes of both kinds: a real document whenever real source is below its share.

    Raises:
        UserError: there is not enough real source.
    """
    synthetic, real = iter(synthetic), iter(real)
    total = total_real = 0
    while total < size:
        due = real_fraction == 1 or total_real < real_fraction * total
        document = next(real, None) if due else next(synthetic)
        if document is None:
            raise UserError(
                f"corpus.real_fraction: {real_fraction}: corpus.real_packages have "
                f"{total_real / MEGABYTE:.1f} MB, {real_fraction * size / MEGABYTE:.1f} MB are asked for; "
                "lower real_fraction or megabytes, or name more packages (null: all that are installed)"
            )
        yield document
        length = len(document.text.encode("utf-8"))
        total += length
        total_real += length if due else 0


def synthetic(seed: int, workers: int) -> Iterator[Document]:
    """Yield the grammar's endless stream from `workers` processes; their number does not change it."""
    if workers == 1:
        yield from chain.from_iterable(_chunk(seed, index) for index in count())
    # fork, like torch's data loader: it needs no re-import and no guard in the main script
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    with ProcessPoolExecutor(workers, multiprocessing.get_context(method), begin_worker) as pool:
        try:
            pending = deque(pool.submit(_chunk, seed, index) for index in range(2 * workers))
            for index in count(2 * workers):
                yield from pending.popleft().result()
                pending.append(pool.submit(_chunk, seed, index))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _chunk(seed: int, index: int) -> list[Document]:
    start = index * CHUNK
    texts = tinypython.documents(seed, start, CHUNK)
    return [Document(text, str(start + i), GRAMMAR) for i, text in enumerate(texts)]
