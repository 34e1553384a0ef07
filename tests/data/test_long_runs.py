"""Long runs of one class of characters: cut where they would overflow a stack, and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsity_lab.core.errors import UserError
from sparsity_lab.data import long_runs
from sparsity_lab.data.long_runs import LIMIT, cut_long_runs
from sparsity_lab.data.tokenizer import RELEASED_PATTERN, Tokenizer, checked_tokenizer, train_bpe
from sparsity_lab.data.tokenizer_folder import GPT2_PATTERN

TEXTS = [f"def area_{i}(width, height):\n    return width * {i} + height\n\n\n" for i in range(50)]
TRAINED = train_bpe(TEXTS, 300)
RUNS = {
    "letters": "a",
    "accents": "\u00e9",
    "marks": "e\u0301",
    "carets": "^",
    "zero-width": "\u200b",
    "newlines": "\n",
    "blanks": " \t",
    "digits": "0123456789",
    "emoji": "\U0001f642",
    "controls": "\x1c^",
}


def with_pattern(pattern: str) -> Tokenizer:
    ranks = TRAINED.encoding._mergeable_ranks
    return checked_tokenizer(pattern, ranks, TRAINED.encoding._special_tokens, "here")


@pytest.mark.parametrize("unit", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("pattern", [TRAINED.encoding._pat_str, RELEASED_PATTERN, GPT2_PATTERN], ids=range(3))
def test_a_run_of_any_class_comes_back(unit: str, pattern: str) -> None:
    text = f"x = 1\n{unit * (350_000 // len(unit))}\ny = 2"
    tokenizer = with_pattern(pattern)
    assert max(map(len, cut_long_runs(text))) < 2 * LIMIT
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("a" * 99_999, [99_999]),
        ("a" * 100_000, [100_000]),
        ("a" * 250_000, [100_000, 100_000, 50_000]),
        ("1" + "a" * 100_001, [100_001, 1]),
        ("ab 1" * 100_000, [400_000]),  # runs, but short ones
        (" " * 100_000 + "x" * 100_000, [100_000, 100_000]),
        ((" " * 99_999 + "x") * 10, [1_000_000]),  # 132 s once: each start was tried
    ],
)
def test_cuts_are_within_long_runs_alone(text: str, lengths: list[int]) -> None:
    assert [len(part) for part in cut_long_runs(text)] == lengths


@given(st.text(st.sampled_from("ab1 \n^\u0301\x1c"), max_size=60))
def test_parts_join_to_the_text_and_no_run_is_longer_than_the_limit(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_runs, "LIMIT", 3)
        parts = list(cut_long_runs(text))
    assert "".join(parts) == text
    for part in parts:
        for run in (str.isspace, str.isalpha, str.isdigit, "^\u0301\x1c".__contains__):
            assert not any(all(map(run, part[i : i + 4])) for i in range(len(part) - 3))


def test_long_runs_can_be_learned_from() -> None:
    tokenizer = train_bpe([*TEXTS, " " * 1_300_000, "\n" * 300_000], 300)
    assert tokenizer.vocab_size == 300


def test_a_panic_of_the_library_names_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    class Encoding:
        def encode_ordinary(self, text: str) -> list[int]:
            raise PanicException("RuntimeError(StackOverflow)")

    tokenizer = Tokenizer(Encoding())  # type: ignore[arg-type]
    with pytest.raises(UserError) as error:
        tokenizer.encode("some document " * 100)
    assert str(error.value).startswith(
        "tokenizer: tiktoken can't encode the text that begins 'some document some"
    )
    assert str(error.value).endswith("PanicException: RuntimeError(StackOverflow)")
