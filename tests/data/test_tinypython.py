"""The synthetic corpus: it parses, depends on (seed, index) alone, and teaches every task both ways round."""

import ast
import random
import re

import pytest

from sparsity_lab.data.lexicon import INPUT_FILES, NAMES, OUTPUT_FILES, Pen
from sparsity_lab.data.tinypython import document, documents

CORPUS = list(documents(seed=0, start=0, count=600))
TEXT = "\n".join(CORPUS)
NAME = rf"(?:{'|'.join(NAMES)})"

IDIOMS = {
    "single_double_quote": (r"print\('[a-z ]+'\)\n", r'print\("[a-z ]+"\)\n'),
    "final_kwarg": (rf"def \w+\((?:\w+=None, )+{NAME}=None\):\n", rf"def \w+\((?:\w+, )+{NAME}\):\n"),
    "set_or_string": (
        r"( +)(\w+) = set\(\)\n(?:\1.*\n)+?\1 {4}\2\.add",
        r"( +)(\w+) = (''|\"\")\n(?:\1.*\n)+?\1 {4}\2 \+=",
    ),
    "set_or_string_fixedvarname": (r"current = set\(\)\n", r"current = (''|\"\")\n"),
    "class_init": (r"self\.(\w+) = \1\n", r", (\w+)\):\n +self\.\1 = \1\n"),
    "with_as": (r"with open\(\S+ '[rw]'\) as ", r"file = open\(\S+ '[rw]'\) if "),
    "bracket_brace": (r" = \{\d: \w+, \d:", r" = \[\d, \d, "),
    "with_open": (r"with open\(.input\.\w+., .r", r"with open\(.output\.\w+., .w"),
    "bracket_counting": (r" = \[[\d, ]+\]\n", r" = \[\[[\d, ]+\]\]\n"),
    "for_while": (rf" for {NAME} in ", rf" while {NAME}:\n"),
    "else_elif": (rf" elif {NAME}:\n", rf" else {NAME}\n"),
    "fstring_brace": (rf"print\(f'[a-z ]+ {{{NAME}}}'\)", r"print\('[a-z ]+'\)"),
    "if_ternary": (rf"\n +if {NAME}:\n", rf" = {NAME} if {NAME} else {NAME}\n"),
    "var_swap": (r"\n(\w+), (\w+) = \2, \1\n", r"\n +(\w+), (\w+) = \2, \1\n"),
    "indent_for": (r"\n( +)for \w+ in \w+:\n\1 {4}\w", r"\n( +)# for \w+ in \w+:\n\1\w"),
    "lambda_func": (rf" = lambda {NAME}: ", rf"def {NAME}\(\):\n"),
    "if_equals": (rf" if {NAME} == ", rf"\n +{NAME} = "),
    "enumerate_range": (rf"for {NAME}, {NAME} in enumerate\(", rf"for {NAME} in range\("),
    "var_if": (rf" if {NAME} == True:\n", rf" {NAME} = True\n"),
    "while_return_true": (r" while True:\n", r" return True\n"),
}


def test_every_document_parses() -> None:
    for text in CORPUS:
        ast.parse(text)


def test_documents_are_short_files() -> None:
    lines = sorted(text.count("\n") for text in CORPUS)
    assert 15 <= lines[len(lines) // 2] <= 60
    assert len(set(CORPUS)) == len(CORPUS)


def test_a_document_depends_on_seed_and_index_alone() -> None:
    assert list(documents(0, 590, 10)) == CORPUS[590:]
    assert list(documents(1, 590, 10)) != CORPUS[590:]
    assert document(random.Random(5)) == document(random.Random(5))


@pytest.mark.parametrize("task", IDIOMS)
@pytest.mark.parametrize("side", [0, 1])
def test_each_task_occurs_both_ways_round(task: str, side: int) -> None:
    assert len(re.findall(IDIOMS[task][side], TEXT)) >= 8


def _functions(tree: ast.AST) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def test_what_decides_is_deterministic() -> None:
    forbidden = {
        "an f-string closes before its brace": r"f'[a-z ]+'|f\"[a-z ]+\"",
        "a plain string holds a brace": r"\('[^'\n]*\{|= '[^'\n]*\{",
        "a while loop without a colon": rf"while {NAME}[^:]",
        "one loop variable over enumerate": r"for \w+ in enumerate",
        "two over range": r"for \w+, \w+ in range",
        "a number as a dict's value": r": \d[,}]",
        "an output opened to read": rf"(?:{'|'.join(OUTPUT_FILES)})\.\w+['\"], ['\"]r",
        "an input opened to write": rf"(?:{'|'.join(INPUT_FILES)})\.\w+['\"], ['\"]w",
    }
    assert [what for what, pattern in forbidden.items() if re.search(pattern, TEXT)] == []
    for function in [function for text in CORPUS for function in _functions(ast.parse(text))]:
        arguments = [argument for argument in function.args.args if argument.arg != "self"]
        assert len(function.args.defaults) in (0, len(arguments))
        if function.name == "__init__":
            assert all(
                isinstance(line, ast.Assign)
                and isinstance(line.value, ast.Name)
                and isinstance(line.targets[0], ast.Attribute)
                and line.targets[0].attr == line.value.id
                for line in function.body
            )


def test_swaps_return_to_the_first_variable() -> None:
    swaps = re.findall(rf"({NAME}), ({NAME}) = ({NAME}), ({NAME})\n", TEXT)
    assert swaps
    assert all(a == d and b == c for a, b, c, d in swaps)


def test_a_pen_draws_different_names() -> None:
    pen = Pen(random.Random(0))
    assert all(len(set(pen.new_names(5))) == 5 == len(set(pen.names(5))) for _ in range(50))
