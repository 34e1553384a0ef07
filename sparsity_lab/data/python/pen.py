"""A `Pen` draws words from one generator and remembers what the program has bound.

It holds the variables in scope with their types, and the functions and classes that the program defines. So
a later line can use a variable by its type, or call a function with the arguments that it takes.
"""

import random
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeVar

from sparsity_lab.data.python.lexicon import (
    ACCUMULATORS,
    CLASSES,
    COLLECTIONS,
    EXTENSIONS,
    FIELDS,
    FUNCTIONS,
    NAMES,
    WORDS,
)

T = TypeVar("T")
Kind = Literal["number", "string", "list", "dict", "set", "flag", "none", "instance"]
KINDS: tuple[Kind, ...] = ("number", "number", "string", "string", "list", "list", "dict", "set", "flag")
_MANY = ("list", "dict", "set")
_POOL = 10  # names of one thing that a program uses
_POOL_MANY = 5


class Function(NamedTuple):
    """A function that the program defines: its parameters with their types, and the type it returns.

    With `defaults`, each parameter has one.
    """

    name: str
    parameters: tuple[tuple[str, Kind], ...]
    defaults: bool
    returns: Kind | None


class Class(NamedTuple):
    """A class that the program defines, with the attributes that its instances have."""

    name: str
    fields: tuple[tuple[str, Kind], ...]
    methods: tuple[Function, ...]


class Pen:
    """Draws words and strings, and keeps the scope.

    A program uses a pool of names, so its names recur. One pen in two uses a single kind of quote; the rest
    mix both.
    """

    __slots__ = ("_many", "_names", "_quotes", "_random", "classes", "functions", "instances", "variables")

    def __init__(self, rng: random.Random) -> None:
        self._random = rng.random
        self._quotes = self.pick(("'", '"', "'\"", "'\""))
        self._names = self.different(NAMES, _POOL)
        self._many = self.different(COLLECTIONS, _POOL_MANY)
        self.variables: dict[str, Kind] = {}
        self.functions: list[Function] = []
        self.classes: list[Class] = []
        self.instances: dict[str, Class] = {}

    def pick(self, options: Sequence[T]) -> T:
        """Draw one of the options uniformly."""
        return options[int(self._random() * len(options))]

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self._random() < probability

    def count(self, low: int, high: int) -> int:
        """Draw an integer from low to high, inclusive."""
        return low + int(self._random() * (high - low + 1))

    def different(self, options: Sequence[T], count: int) -> list[T]:
        """Draw distinct options uniformly."""
        found: list[T] = []
        while len(found) < count:
            option = self.pick(options)
            if option not in found:
                found.append(option)
        return found

    def name(self) -> str:
        """Draw a name of one thing, mostly from the program's pool."""
        return self.pick(self._names if self._random() < 0.9 else NAMES)

    def names(self, count: int) -> list[str]:
        """Draw distinct names of one thing, mostly from the program's pool."""
        found: list[str] = []
        while len(found) < count:
            name = self.name()
            if name not in found:
                found.append(name)
        return found

    def collection(self) -> str:
        """Draw a name of many things, mostly from the program's pool."""
        return self.pick(self._many if self._random() < 0.9 else COLLECTIONS)

    def fields(self, count: int) -> list[str]:
        """Draw distinct names of attributes."""
        return self.different(FIELDS, count)

    def bind(self, name: str, kind: Kind) -> str:
        """Record that the variable now holds a value of this type, and return its name."""
        if kind != "instance":
            self.instances.pop(name, None)
        self.variables[name] = kind
        return name

    def new(self, kind: Kind) -> str:
        """Draw a name for a variable of this type, without binding it; two in three are not yet bound."""
        draw = self.collection if kind in _MANY and self._random() < 0.8 else self.name
        name = draw()
        if name in self.variables and self._random() < 0.7:
            name = draw()
        return name

    def bound(self, *kinds: Kind) -> str | None:
        """Draw a variable in scope that holds a value of one of these types; None if there is none."""
        found = [name for name, kind in self.variables.items() if kind in kinds]
        return found[int(self._random() * len(found))] if found else None

    def known(self) -> str:
        """Draw a variable in scope, or any name if there is none."""
        return self.pick(list(self.variables)) if self.variables else self.name()

    def number(self) -> str:
        """Draw a variable that holds a number, or any name if there is none."""
        return self.bound("number") or self.name()

    def many(self) -> str:
        """Draw a variable that holds a list, or any name of many things if there is none."""
        return self.bound("list") or self.collection()

    def enter(self, parameters: Sequence[tuple[str, Kind]]) -> dict[str, Kind]:
        """Enter a function: its parameters alone are in scope. Return the scope that is left."""
        outside, self.variables = self.variables, dict(parameters)
        return outside

    def quote(self) -> str:
        """Draw the quote of the next string."""
        return self.pick(self._quotes)

    def phrase(self, low: int, high: int) -> str:
        """Draw low to high words for the inside of a string."""
        return " ".join([self.pick(WORDS) for _ in range(self.count(low, high))])

    def inside(self, quote: str) -> str:
        """Draw the inside of a string; one in four quotes a word by the other kind of quote."""
        if self._random() >= 0.25:
            return self.phrase(1, 3)
        return self.quoting(quote) + (f" {self.phrase(1, 2)}" if self._random() < 0.7 else "")

    def quoting(self, quote: str) -> str:
        """Draw words for a string in `quote`, the last of which stands in the other kind of quote."""
        other = "'" if quote == '"' else '"'
        return f"{self.phrase(1, 2)} {other}{self.pick(WORDS)}{other}"

    def string(self) -> str:
        """Draw a quoted string of one to three words."""
        quote = self.quote()
        return f"{quote}{self.phrase(1, 3)}{quote}"

    def file(self, words: Sequence[str]) -> str:
        """Draw a file name, without quotes."""
        return self.pick(words) + self.pick(EXTENSIONS)

    def accumulator(self) -> str:
        """Draw the name of a variable that a loop fills; one in five is `current`."""
        return "current" if self._random() < 0.2 else self.pick(ACCUMULATORS)

    def function(self) -> str:
        """Draw the name of a function."""
        return self.pick(FUNCTIONS)

    def class_name(self) -> str:
        """Draw the name of a class."""
        return self.pick(CLASSES)


Statement = Callable[[Pen, str], str]
"""A function that writes whole lines at an indentation."""
