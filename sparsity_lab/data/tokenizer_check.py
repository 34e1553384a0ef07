"""Compare a tokenizer read from files with the library `tokenizers`, if it is installed.

Normalizers, post-processors, patterns and added tokens can all change the ids. The check encodes a sample of
short texts and rejects the tokenizer if any ids differ. Without the library, nothing is compared.
"""

import logging
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.foreign import foreign
from sparsity_lab.data.added_tokens import AddedToken
from sparsity_lab.data.tokenizer import Tokenizer

log = logging.getLogger(__name__)

SAMPLE = (
    "def area(width, height):\n    return width * height\n\n\nclass Box:\n\tpass\n",
    "if x == True:\n        return [1, 22, 333, 4444]  # it's 'not' \"so\"\n",
    " leading, trailing  ",
    "a\r\n\r\n b \t\t c\n   \n     d\u00a0e\u2003f",
    "naïve café, Ångström, ｆｕｌｌ ﬁ",
    "nai\u0308ve e\u0301",
    "0 12 345 6789 1234567 ²³ ½ ٣",
    "日本語 のテキスト",
    "Русский ÜBER straße",
    "हिन्दी में",
    "🙂 👩‍👩‍👧 🇫🇷 e\u200bf",
    "We'll I'VE don't 'LL",
    "x+=1;y**=2//3!=<<>>()[]{}:->@#$%^&~`|\\",
    "https://example.org/a_b-c?d=1&e=%20",
    "<|endoftext|> <s> [MASK] <unk>",
)


def library_of_json(path: Path) -> Any | None:
    """Load a `tokenizer.json` with the library; None if it is not installed.

    Raises:
        UserError: the library cannot read the file.
    """
    try:
        import tokenizers
    except ImportError:
        return None
    with foreign(f"{path}: the tokenizers library can't read it"):
        theirs = tokenizers.Tokenizer.from_file(str(path))
        theirs.no_truncation()
        theirs.no_padding()
        theirs.encode_special_tokens = True  # treat special tokens as ordinary text, as this project does
        return theirs


def library_of_merges(
    vocab: dict[str, int],
    merges: list[list[str]],
    pattern: str | None,
    added: tuple[AddedToken, ...],
    where: str,
) -> Any | None:
    """Build the library's byte-level BPE; `pattern` None uses its built-in pattern, GPT-2's.

    The result is None if the library is not installed or does not support the pattern's syntax.

    Raises:
        UserError: the library rejects the vocabulary or the merges.
    """
    try:
        import tokenizers
    except ImportError:
        return None
    known = vocab | {token.content: token.id for token in added}  # a known token keeps its id when added
    with foreign(f"{where}: the tokenizers library can't use it"):
        theirs = tokenizers.Tokenizer(tokenizers.models.BPE(known, [(pair[0], pair[1]) for pair in merges]))
        theirs.encode_special_tokens = True
        for token in added:
            add = theirs.add_special_tokens if token.special else theirs.add_tokens
            add([tokenizers.AddedToken(token.content, normalized=token.normalized, special=token.special)])
    level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    theirs.pre_tokenizer = level
    if pattern is not None:
        try:
            with foreign("not compared with the tokenizers library, which can't read the pattern"):
                split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
        except UserError as error:
            log.info("%s: %s", where, error)
            return None
        theirs.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, level])
    return theirs


def match_library(ours: Tokenizer, theirs: Any | None, added: Iterable[str], where: str) -> None:
    """Compare ids on the sample and on texts with each of the `added` tokens.

    Raises:
        UserError: the ids of a text differ.
    """
    if theirs is None:
        return
    for text in (*SAMPLE, *_with_added(list(added))):
        with foreign(f"{where}: the tokenizers library can't encode {text!r}"):
            expected = theirs.encode(text).ids
        if (found := ours.encode(text)) != expected:
            raise UserError(
                f"{where}: can't be read exactly: {text!r} is {found} here, "
                f"{expected} in the tokenizers library"
            )


def _with_added(added: list[str]) -> Iterator[str]:
    for token in added:
        yield f"{token}a {token}{token} b{token}\n{token} "
    for first, second in pairwise(added):
        yield f"{first}{second}{first}"
        yield f"{first[:-1]}{second}{second[1:]} {second[:-1]}{first}"
