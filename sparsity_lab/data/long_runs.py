"""Cut long runs of one character class, which would overflow the stack of a tokenizer's regex engine.

A tokenizer's pattern matches a run of letters, of digits, of blanks or of other characters as one piece. The
regular expression engines of tiktoken (0.11) and rustbpe panic on pieces of a million characters; 100,000 are
safe for every pattern used here. A text without such a run is not cut.
"""

import unicodedata
from collections.abc import Iterator
from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

LIMIT = 100_000  # characters of one class between two cuts
BLANK, LETTER, NUMBER, OTHER = 1, 2, 4, 8
# isspace() accepts four control characters outside Unicode's White_Space; patterns class them as other
CONTROLS = "\x1c\x1d\x1e\x1f"


def cut_long_runs(text: str) -> Iterator[str]:
    """Yield the text in parts, cut after every `LIMIT` characters of a run, in linear time."""
    if len(text) < LIMIT:
        yield text
        return
    cuts = _cuts(text)
    yield from (text[start:end] for start, end in pairwise([0, *cuts, len(text)]) if start < end)


def _cuts(text: str) -> list[int]:
    """Return the sorted, distinct positions of the cuts."""
    data = text.encode("utf-32-le", "surrogatepass")
    classes = _classes()[np.frombuffer(data, dtype="<u4")]
    found: set[int] = set()
    for class_ in (BLANK, LETTER, NUMBER, OTHER):
        inside = np.concatenate([[0], (classes & class_ != 0).astype(np.int8), [0]])
        edges = np.flatnonzero(np.diff(inside))
        starts, ends = edges[::2], edges[1::2]
        long = ends - starts >= LIMIT
        for start, end in zip(starts[long].tolist(), ends[long].tolist(), strict=True):
            found.update(range(start + LIMIT, end + 1, LIMIT))
    return sorted(found)


@cache
def _classes() -> npt.NDArray[np.uint8]:
    r"""Return the classes of each code point. A mark is both letter and other, since patterns differ."""
    table = np.zeros(0x110000, dtype=np.uint8)
    for code in range(0x110000):
        char = chr(code)
        kind = unicodedata.category(char)[0]
        if char.isspace():
            table[code] = BLANK | (OTHER if char in CONTROLS else 0)
        elif kind == "M":
            table[code] = LETTER | OTHER
        else:
            table[code] = LETTER if kind == "L" else NUMBER if kind == "N" else OTHER
    return table
