"""Assign documents to training and validation so that both hold the same mixture.

1. Documents are grouped by component (generated, real, ...) and, within it, by size in powers of two.
2. Each group is ordered by the documents' hashes, the groups of a component from large to small documents.
3. In that order a document goes to validation whenever the validation text is at least half the document's
   size short of its share of the bytes so far. The last documents are small, so the final error is too.

Whole files are cut into pieces before (`python_source.py`, `folder.py`), so no document outweighs the rest.
"""

from collections.abc import Sequence

VALIDATION_FLOOR = 2_000_000  # bytes: some 4,000 windows of 128 tokens, for a standard error of 0.01 nats
MAX_FLOOR_SHARE = 0.1  # a small corpus keeps nine tenths for training


def validation_share(size: int, share: float) -> float:
    """Return `share`, raised for a corpus of `size` bytes that would get less than VALIDATION_FLOOR.

    It is raised to at most MAX_FLOOR_SHARE.
    """
    return max(share, min(VALIDATION_FLOOR / size, MAX_FLOOR_SHARE))


def in_validation(
    components: Sequence[str], sizes: Sequence[int], hashes: Sequence[int], share: float
) -> list[bool]:
    """Return whether each document goes to validation, which gets `share` of each component's bytes.

    `sizes` are in bytes. There must be at least two documents; each split gets at least one.
    """
    chosen = [False] * len(sizes)
    order = sorted(range(len(sizes)), key=lambda i: (components[i], -sizes[i].bit_length(), hashes[i]))
    component, short = None, 0.0
    for i in order:
        if components[i] != component:
            component, short = components[i], 0.0
        short += share * sizes[i]
        if short >= sizes[i] / 2:
            chosen[i] = True
            short -= sizes[i]
    first = min(order, key=lambda i: (sizes[i], hashes[i]))  # the smallest changes the mixture least
    if all(chosen) or not any(chosen):
        chosen[first] = not chosen[first]
    return chosen
