"""The words of `tinypython` and the plain lines made of them, shared by the grammar and the tasks' prompts.

The lexicon is small on purpose: each noun is one token in its common forms (`name`, ` name`, `.name`), so
that a small model spends its capacity on structure. A `Pen` draws from it. Plain statements contain no
feature that decides a task (quote, square bracket, loop, condition, swap, `True` or default), so they are
neutral context for every prompt.
"""

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIELDS = _words("name size color count value width height price")
NAMES = FIELDS + _words(
    """
    item index total score level owner user title text line word key node point state status speed weight
    label message page child field limit ready active
    """
)
COLLECTIONS = _words("items names values lines words users rows keys nodes points")
ACCUMULATORS = _words("result current output current buffer answer")  # naming one is a task of its own
FUNCTIONS = _words(
    """
    load save read write get find make build run send update check move parse show compute merge split
    collect create
    """
)
CLASSES = _words("Robot Animal Player Account Book Car Shape Person Node Game House Tree")
MODULES = _words("os sys json math random re")
WORDS = _words(
    """
    hello world red green blue black white apple bread milk water fire cold warm small large happy good
    fast slow sun moon rain snow
    """
)
INPUT_FILES = _words("input config data settings")
OUTPUT_FILES = _words("output report backup summary")
EXTENSIONS = _words(".txt .csv .json .log")
OPERATORS = _words("+ - *")
DIGITS = _words("1 2 3 4 5 6 7 8 9")
COMMENTS = tuple(f"{verb} the" for verb in _words("update check read get keep use compute set"))

INDENT = "    "


class Pen:
    """Draws words and strings from one generator.

    Four pens in five use a single kind of quote; the rest mix both. Four names in five come from the scope,
    which includes a function's arguments. Real code repeats its names too, so a model can learn to copy.
    """

    __slots__ = ("_quotes", "_random", "_scope")

    def __init__(self, rng: random.Random) -> None:
        self._random = rng.random
        self._quotes = self.pick(("'", '"', "'", '"', "'\""))
        self._scope = self.new_names(4)

    def pick(self, options: Sequence[T]) -> T:
        """Draw one of the options uniformly."""
        return options[int(self._random() * len(options))]

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self._random() < probability

    def count(self, low: int, high: int) -> int:
        """Draw an integer from low to high, inclusive."""
        return low + int(self._random() * (high - low + 1))

    def name(self) -> str:
        """Draw a variable's name, mostly from the scope."""
        return self.pick(self._scope if self._random() < 0.8 else NAMES)

    def names(self, count: int) -> list[str]:
        """Draw distinct variable names, mostly from the scope."""
        found: list[str] = []
        while len(found) < count:
            name = self.name()
            if name not in found:
                found.append(name)
        return found

    def new_names(self, count: int) -> list[str]:
        """Draw distinct names uniformly from the lexicon."""
        return self.different(NAMES, count)

    def fields(self, count: int) -> list[str]:
        """Draw distinct names for attributes and swaps, from a short list that is easy to learn to copy."""
        return self.different(FIELDS, count)

    def different(self, options: Sequence[T], count: int) -> list[T]:
        """Draw distinct options uniformly."""
        found: list[T] = []
        while len(found) < count:
            option = self.pick(options)
            if option not in found:
                found.append(option)
        return found

    def enter(self, arguments: list[str]) -> None:
        """Enter a function: set the scope to its arguments and two other names."""
        self._scope = arguments + self.new_names(2)

    def quote(self) -> str:
        """Draw the quote of the next string."""
        return self.pick(self._quotes)

    def phrase(self, low: int, high: int) -> str:
        """Draw low to high words for the inside of a string."""
        return " ".join([self.pick(WORDS) for _ in range(self.count(low, high))])

    def string(self) -> str:
        """Draw a quoted string of one to three words."""
        quote = self.quote()
        return f"{quote}{self.phrase(1, 3)}{quote}"

    def file(self, words: Sequence[str]) -> str:
        """Draw a file name, without quotes."""
        return self.pick(words) + self.pick(EXTENSIONS)


Statement = Callable[[Pen, str], str]
"""A function that writes whole lines at an indentation."""


def assign_number(pen: Pen, pad: str) -> str:
    return f"{pad}{pen.name()} = {pen.pick(DIGITS)}\n"


def assign_sum(pen: Pen, pad: str) -> str:
    return f"{pad}{pen.name()} = {pen.name()} {pen.pick(OPERATORS)} {pen.name()}\n"


def assign_call(pen: Pen, pad: str) -> str:
    return f"{pad}{pen.name()} = {pen.pick(FUNCTIONS)}({pen.name()})\n"


def call(pen: Pen, pad: str) -> str:
    return f"{pad}{pen.pick(FUNCTIONS)}({pen.name()}, {pen.name()})\n"


def comment(pen: Pen, pad: str) -> str:
    # a block needs a statement besides the comment
    return f"{pad}# {pen.pick(COMMENTS)} {pen.name()}\n{assign_call(pen, pad)}"


PLAIN: tuple[Statement, ...] = (assign_number, assign_number, assign_sum, assign_call, call, comment)


def plain(pen: Pen, pad: str) -> str:
    """Write one plain statement."""
    return pen.pick(PLAIN)(pen, pad)


def plain_lines(pen: Pen, pad: str, low: int, high: int) -> str:
    """Write low to high plain statements."""
    return "".join([plain(pen, pad) for _ in range(pen.count(low, high))])


def function_header(pen: Pen, pad: str, first: str = "") -> str:
    """Write `def load(name, size):` without defaults and enter its scope; methods pass `first="self"`."""
    arguments = pen.new_names(pen.count(1, 3))
    pen.enter(arguments)
    return f"{pad}def {pen.pick(FUNCTIONS)}({', '.join([first, *arguments] if first else arguments)}):\n"
