"""The synthetic corpus: it parses, depends on (seed, index) alone, and teaches every task both ways round.

Its programs are consistent: functions and classes are called with the arguments that they take, and a
variable is used as its type asks.
"""

import ast
import random
import re

import pytest

from sparsity_lab.data.python.lexicon import INPUT_FILES, OUTPUT_FILES
from sparsity_lab.data.python.lines import use_as
from sparsity_lab.data.python.pen import Kind, Pen
from sparsity_lab.data.python.values import nested_list
from sparsity_lab.data.tinypython import document, documents

CORPUS = list(documents(seed=0, start=0, count=1500))
TREES = [ast.parse(text) for text in CORPUS]
TEXT = "\n".join(CORPUS)
NAME = r"[a-z]+"
CONDITION = rf"(?:not )?{NAME}(?: (?:and|==|>|<) {NAME})*"

IDIOMS = {
    "single_double_quote": (r"print\('[a-z ]+'\)\n", r'print\("[a-z ]+"\)\n'),
    "single_double_quote, quoting": (r"print\('[a-z ]+ \"\w+\" \w", r"print\(\"[a-z ]+ '\w+' \w"),
    "final_kwarg": (rf"def \w+\((?:\w+=\w+, )+{NAME}=None\):\n", rf"def \w+\((?:\w+, )+{NAME}\):\n"),
    "set_or_string": (
        r"( *)(\w+) = set\(\)\n(?:\1.*\n)+?\1 {4}\2\.add",
        r"( *)(\w+) = (''|\"\")\n(?:\1.*\n)+?\1 {4}\2 \+=",
    ),
    "set_or_string, with another": (r"(\w+) = set\(\)\n *\w+ = ''\n", r"(\w+) = ''\n *\w+ = set\(\)\n"),
    "set_or_string_fixedvarname": (r"current = set\(\)\n", r"current = (''|\"\")\n"),
    "class_init": (r"self\.(\w+) = \1\n", r", (\w+)\):\n +self\.\1 = \1\n"),
    "with_as": (r"with open\(.*\) as ", r"(?:file|stream) = open\(.*\) if "),
    "with_as, in a call": (rf"with open\({NAME}\) as ", rf"{NAME}\(open\(.*\) if "),
    "bracket_brace": (r" = \{\d: \w+, \d:", r" = \[\d, \d"),
    "bracket_brace, closed": (r" = \{\d: \[[\d, ]+\], \d:", r" = \[\{\d: \w+\}, \d"),
    "with_open": (r"with open\(.input\.\w+., .r", r"with open\(.output\.\w+., .w"),
    "bracket_counting": (r" = \[[\d, ]+\]\n", r" = \[\[[\d, ]+\]\]\n"),
    "bracket_counting, deeper": (r" = \[\[[\d, ]+\]\]\n", r" = \[\[\[[\d, ]+\]\]\]\n"),
    "bracket_counting, closed": (r" = \[\[[\d, ]+\], [\d, ]+\]\n", r" = \[\[[\d, ]+\], \[[\d, ]+\]\]\n"),
    "for_while": (rf" for {NAME} in ", rf" while {NAME}:\n"),
    "else_elif": (rf" elif {CONDITION}:\n", rf" else {NAME}\n"),
    "fstring_brace": (rf"print\(f'[a-z ]+ {{{NAME}}}'\)", r"print\('[a-z ]+'\)"),
    "if_ternary": (rf"\n +if {CONDITION}:\n", rf" = {NAME} if {CONDITION} else {NAME}\n"),
    "if_ternary, elsewhere": (rf"return {NAME} if {CONDITION} else", rf"{NAME}\({NAME} if {CONDITION} else"),
    "var_swap": (r"\n(\w+), (\w+) = \2, \1\n", r"\n +(\w+), (\w+) = \2, \1\n"),
    "indent_for": (r"\n( +)for \w+ in \w+:\n\1 {4}\w", r"\n( +)# for \w+ in \w+:\n\1\w"),
    "lambda_func": (rf" = lambda {NAME}: ", rf"def {NAME}\("),
    "lambda_func, more": (rf"lambda {NAME}, {NAME}: ", rf" def {NAME}\("),
    "if_equals": (rf" if {NAME} == ", rf"\n +{NAME} = "),
    "if_equals, and": (rf" if {NAME} and {NAME} == ", rf"\n +{NAME} = "),
    "enumerate_range": (rf"for {NAME}, {NAME} in enumerate\(", rf"for {NAME} in range\("),
    "enumerate_range, pairs": (rf"for {NAME}, \({NAME}, {NAME}\) in enumerate", rf"\nfor {NAME} in range\("),
    "var_if": (rf" if {NAME} == True:\n", rf" {NAME} = True\n"),
    "var_if, compared": (rf" while {NAME} == True:\n", rf" = {NAME} == True\n"),
    "while_return_true": (r" while True:\n", r" return True\n"),
}


def test_a_document_depends_on_seed_and_index_alone() -> None:
    assert list(documents(0, 590, 10)) == CORPUS[590:600]
    assert list(documents(1, 590, 10)) != CORPUS[590:600]
    assert document(random.Random(5)) == document(random.Random(5))


def test_every_document_parses_and_none_repeats() -> None:
    for text in documents(seed=3, start=10**9, count=1500):  # those of seed 0 are parsed above
        ast.parse(text)
    assert len(set(CORPUS)) == len(CORPUS)


def test_documents_are_short_files() -> None:
    lines = sorted(text.count("\n") for text in CORPUS)
    assert 15 <= lines[len(lines) // 2] <= 60


@pytest.mark.parametrize("task", IDIOMS)
@pytest.mark.parametrize("side", [0, 1])
def test_each_task_occurs_both_ways_round(task: str, side: int) -> None:
    assert len(re.findall(IDIOMS[task][side], TEXT)) >= 8


def _functions(tree: ast.AST) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def test_what_decides_is_deterministic() -> None:
    forbidden = {
        "an f-string closes before its brace": r"[( ]f'[a-z ]+'|[( ]f\"[a-z ]+\"",
        "a plain string holds a brace": r"\('[^'\n]*\{|= '[^'\n]*\{",
        "a while loop with in": r"while [^\n]* in ",
        "one loop variable over enumerate": r"for \w+ in enumerate",
        "two over range": r"for \w+, \w+ in range",
        "a number as a dict's value": r"\{\d+: \d",
        "an output opened to read": rf"['\"](?:{'|'.join(OUTPUT_FILES)})\.\w+['\"], ['\"]r",
        "an input opened to write": rf"['\"](?:{'|'.join(INPUT_FILES)})\.\w+['\"], ['\"]w",
    }
    assert [what for what, pattern in forbidden.items() if re.search(pattern, TEXT)] == []
    for function in [function for tree in TREES for function in _functions(tree)]:
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


def _arguments(node: ast.FunctionDef | ast.ClassDef) -> tuple[list[str], bool]:
    """The names of the arguments that a call gives, and whether it gives them by keyword."""
    if isinstance(node, ast.ClassDef):
        node = next(line for line in node.body if isinstance(line, ast.FunctionDef))
    names = [argument.arg for argument in node.args.args if argument.arg != "self"]
    return names, bool(node.args.defaults)


def test_functions_and_classes_are_called_with_the_arguments_they_take() -> None:
    """Calls at module level of a name that is defined once have the right number and the right keywords."""
    calls = keywords = 0
    for tree in TREES:
        defined = {
            node.name: _arguments(node)
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
        }
        names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and _is_store(node)}
        seen: set[str] = set()
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                seen.add(node.name)
                continue
            for call in [found for found in ast.walk(node) if isinstance(found, ast.Call)]:
                if not isinstance(call.func, ast.Name) or names.count(call.func.id) != 1:
                    continue
                name = call.func.id
                if name not in seen or name in bound or call.func.id in {"print", "len", "open"}:
                    continue
                arguments, defaults = defined[name]
                given = {keyword.arg for keyword in call.keywords}
                if given <= set(arguments) and len(call.args) == (0 if defaults else len(arguments)):
                    calls += 1
                    keywords += bool(given)
                else:
                    calls -= 3
    assert calls > 500
    assert keywords > 100


def _is_store(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Store)


def test_an_instance_is_used_by_the_attributes_and_methods_of_its_class() -> None:
    """The line after `x = Class(...)` at module level uses an attribute or a method that the class has."""
    used = 0
    for text, tree in zip(CORPUS, TREES, strict=True):
        classes = {node.name: ast.unparse(node) for node in tree.body if isinstance(node, ast.ClassDef)}
        if len(classes) < len(re.findall(r"^class ", text, re.M)):
            continue  # a name is defined twice
        lines = r"^(\w+) = ([A-Z]\w+)\(.*\)\n(?:\w+ = )?(\w+)\.(\w+)"
        for variable, name, user, attribute in re.findall(lines, text, re.M):
            if user == variable and name in classes:
                used += 1
                assert re.search(rf"self\.{attribute} =|def {attribute}\(self", classes[name])
    assert used > 50


def test_imported_modules_are_used() -> None:
    for text in CORPUS:
        for module in re.findall(r"^import (\w+)$", text, re.M):
            assert re.search(rf"= {module}\.\w+\(", text)


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("number", r"x \+= .+|x = x [-+*] .+"),
        ("string", r"x \+= ['\"].+|x = x\.strip\(\)"),
        ("list", r"x\.append\(.+\)"),
        ("set", r"x\.add\(.+\)"),
        ("dict", r"x\[.+\] = .+"),
        ("flag", r"x = not x"),
        ("none", r"x = \d"),
    ],
)
def test_a_variable_is_used_as_its_type_asks(kind: Kind, form: str) -> None:
    pen = Pen(random.Random(0))
    for _ in range(30):
        pen.bind("x", kind)
        assert re.fullmatch(form, use_as(pen, "", "x", kind).rstrip("\n"))


def test_lists_nest_to_a_depth_of_four_and_some_rows_close_before() -> None:
    pen = Pen(random.Random(0))
    texts = [nested_list(pen) for _ in range(500)]
    closing = {len(text) - len(text.rstrip("]")) for text in texts}
    assert closing == {1, 2, 3, 4}
    assert sum("]," in text for text in texts) > 100


def test_swaps_return_to_the_first_variable() -> None:
    swaps = re.findall(rf"^ *({NAME}), ({NAME}) = ({NAME}), ({NAME})\n", TEXT, re.M)
    assert swaps
    assert all(a == d and b == c for a, b, c, d in swaps)


def test_a_pen_draws_different_names() -> None:
    pen = Pen(random.Random(0))
    assert all(len(set(pen.fields(5))) == 5 == len(set(pen.names(5))) for _ in range(50))
