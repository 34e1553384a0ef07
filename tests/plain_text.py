"""A text that a very small model learns in seconds, and three tasks about it.

For tests that need a trained model with circuits: `tinypython` and its tasks take a million tokens. The first
line of a document holds three words, each of which decides what follows one verb further down.
"""

import json
import os
import random
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import gettempdir

from sparsity_lab.core.files import locked, write_text
from sparsity_lab.tasks.task import Pair, Task

CHOICES = {  # verb → words of the first line, and what each of them makes follow the verb
    "go": (("north", "south"), (" up", " down")),
    "wear": (("summer", "winter"), (" hat", " coat")),
    "drink": (("day", "night"), (" tea", " milk")),
}
VERBS = ("see", "take", "find", "leave", "hold")
NOUNS = ("stone", "river", "bird", "house", "tree", "road", "lamp", "door")
MEGABYTES = 0.4


def head(rng: random.Random) -> dict[str, int]:
    """Draw one of the two words for each verb."""
    return {verb: rng.randrange(2) for verb in CHOICES}


def first_line(chosen: dict[str, int]) -> str:
    """Write the line that decides."""
    return " ".join([CHOICES[verb][0][which] for verb, which in chosen.items()]) + "\n"


def line(rng: random.Random, chosen: dict[str, int]) -> str:
    """Write one line: half of them follow the first line."""
    if rng.random() < 0.5:
        verb = rng.choice(list(CHOICES))
        return f"{verb}{CHOICES[verb][1][chosen[verb]]}\n"
    return f"{rng.choice(VERBS)} {rng.choice(NOUNS)}\n"


def documents() -> Iterator[str]:
    """Yield the text's documents."""
    rng, written = random.Random(0), 0
    while written < MEGABYTES * 1e6:
        chosen = head(rng)
        text = first_line(chosen) + "".join([line(rng, chosen) for _ in range(rng.randint(6, 14))])
        written += len(text)
        yield text


def make(verb: str) -> Callable[[random.Random], Pair]:
    """Make pairs that ask what follows the verb; the filler holds only lines that say nothing of it."""

    def pair(rng: random.Random) -> Pair:
        chosen = head(rng)
        filler = "".join([f"{rng.choice(VERBS)} {rng.choice(NOUNS)}\n" for _ in range(rng.randint(2, 6))])
        prompts = [first_line(chosen | {verb: which}) + filler + verb for which in (0, 1)]
        return Pair(prompts[0], prompts[1], CHOICES[verb][1])

    return pair


TASKS = [Task(verb, f"{verb}: the first line decides", make(verb), kind="look-up") for verb in CHOICES]


@cache
def file() -> Path:
    """Write the text as JSON Lines, to one place for all processes of a user: records hold its path."""
    path = Path(gettempdir()) / f"sparsity_lab_plain_text_{os.getuid()}.jsonl"
    text = "".join([json.dumps({"text": text}) + "\n" for text in documents()])
    with locked(path):  # several processes may come here at once
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
    return path


def overrides() -> list[str]:
    """Give the run this text, its three tasks, and a model that learns them all in a few seconds.

    At this vocabulary size every word is one token, so that a pair's prompts are equally long.
    """
    return [
        *("corpus=huggingface", f"corpus.name={file()}", "corpus.validation_share=0.1"),
        *(f"tasks.path={Path(__file__)}", f"tasks.names=[{','.join(CHOICES)}]", "tokenizer.vocab_size=346"),
        *("model.n_layer=1", "model.d_model=32", "model.n_ctx=64", "sparsity.nonzeros=10000"),
        *("trainer.tokens=60000", "trainer.batch_size=8", "trainer.learning_rate=0.01"),
        "trainer.precision=float32",
    ]
