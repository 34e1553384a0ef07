"""Write the example of docs/using.md: a folder of short English stories, and 40 pairs that ask for a pronoun.

    python docs/pronouns.py stories pronouns.jsonl

In every story a name's sentence goes on with its pronoun: "Anna lost the ball because she was tired." The
pairs stop before it.
"""

import json
import random
import sys
from pathlib import Path

SHE = ("Anna", "Mary", "Lucy", "Emma", "Jane", "Rosa", "Nina", "Ella", "Ruth", "Clara")
HE = ("Paul", "John", "Peter", "Tom", "Max", "Leo", "Ben", "Carl", "Hugo", "Frank")
THINGS = ("ball", "book", "hat", "key", "lamp", "map", "coat", "letter", "boat", "kite")
VERBS = ("lost", "found", "sold", "bought", "painted", "dropped", "carried", "hid", "mended", "washed")
STATES = ("tired", "happy", "late", "cold", "angry", "bored", "ill", "busy", "sad", "hungry")
N_FILES, STORIES, N_PAIRS = 300, 40, 40


def clause(rng: random.Random, name: str) -> str:
    """A name's sentence up to its pronoun."""
    return f"{name} {rng.choice(VERBS)} the {rng.choice(THINGS)} {rng.choice(('because', 'and', 'when'))}"


def story(rng: random.Random) -> str:
    """Some sentences about different people, one a line."""
    lines = []
    for _ in range(rng.randint(4, 8)):
        pronoun, names = rng.choice((("she", SHE), ("he", HE)))
        lines.append(f"{clause(rng, rng.choice(names))} {pronoun} was {rng.choice(STATES)}.")
    return "\n".join(lines) + "\n"


def pairs(rng: random.Random) -> list[dict[str, object]]:
    """Pairs whose prompts differ in the name alone; each prompt begins with another person's sentence."""
    found: dict[str, dict[str, object]] = {}
    while len(found) < N_PAIRS:
        before = story(rng).partition("\n")[0]
        she, he = rng.choice(SHE), rng.choice(HE)
        asked = clause(rng, she)
        positive, negative = f"{before}\n{asked}", f"{before}\n{he}{asked.removeprefix(she)}"
        found[positive] = {"positive": positive, "negative": negative, "answers": [" she", " he"]}
    return list(found.values())


def main(stories: Path, file: Path) -> None:
    """Write the stories, 40 in a file, and the pairs."""
    rng = random.Random(0)
    stories.mkdir(parents=True, exist_ok=True)
    for i in range(N_FILES):
        text = "\n".join(story(rng) for _ in range(STORIES))
        (stories / f"{i:03}.txt").write_text(text, encoding="utf-8")
    file.write_text("".join(json.dumps(pair) + "\n" for pair in pairs(rng)), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
