"""How fast `tinypython` is written on one core, and what brackets as tokens of their own cost.

python -m benchmarks.tinypython [--documents 4000] [--vocab-size 1024]
"""

import argparse
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from sparsity_lab.core.program import start
from sparsity_lab.data.tinypython import documents
from sparsity_lab.data.tokenizer import PATTERN, train_bpe

GLUED = r"[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
"""The pattern under which neighbouring brackets merge: `[[` is one token."""


class Measured(NamedTuple):
    """Speed of the grammar on one core, and mean tokens a document under both patterns."""

    documents_per_second: float
    tokens_per_second: float
    tokens_per_document: float
    tokens_per_document_glued: float


def measure(count: int, vocab_size: int) -> Measured:
    """Write `count` documents, and encode others with tokenizers trained on them."""
    began = time.perf_counter()
    written = list(documents(0, 0, count))
    seconds = time.perf_counter() - began
    held_out = list(documents(1, 0, max(1, count // 10)))
    own, glued = (
        sum(len(tokenizer.encode(text)) for text in held_out) / len(held_out)
        for tokenizer in (train_bpe(written, vocab_size, pattern) for pattern in (PATTERN, GLUED))
    )
    return Measured(count / seconds, count * own / seconds, own, glued)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=4000)
    parser.add_argument("--vocab-size", type=int, default=1024)
    options = parser.parse_args(arguments)
    found = measure(options.documents, options.vocab_size)
    cost = found.tokens_per_document / found.tokens_per_document_glued - 1
    sys.stdout.write(
        f"one core: {found.documents_per_second:,.0f} documents/s, {found.tokens_per_second:,.0f} tokens/s\n"
        f"tokens a document: {found.tokens_per_document:.0f}; "
        f"with merged brackets {found.tokens_per_document_glued:.0f} ({cost:+.1%})\n"
    )


if __name__ == "__main__":
    start(main)
