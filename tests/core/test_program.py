"""A program whose reader has gone ends without a message; any other ending is left as it is."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
START = "import sys\nfrom sparsity_lab.core.program import start\n"
LINES = START + "start(lambda: [print(i) for i in range(100_000)] and 0)"
LITTLE = START + "start(lambda: print('x'))"  # all of it is written by the last flush
LATE = START + "import time\nstart(lambda: [print('x', flush=True), time.sleep(0.5), print('y')] and 3)"
PROGRAMS = sorted(
    path
    for top in ("sparsity_lab", "analysis", "benchmarks")
    for path in (ROOT / top).rglob("*.py")
    if 'if __name__ == "__main__"' in path.read_text()
)


@pytest.mark.parametrize("code", [LINES, LITTLE, LATE])
def test_a_reader_that_has_gone(code: str) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert program.stdout is not None
    assert program.stderr is not None
    if code != LITTLE:
        assert program.stdout.readline()
    program.stdout.close()
    assert program.stderr.read() == b""
    program.stderr.close()
    assert program.wait() == 141


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("return 3", 3),
        ("return None", 0),
        ("sys.exit(2)", 2),
        ("raise KeyError('a')", 1),
        ("raise BrokenPipeError(32, 'a')", 1),
    ],
)
def test_other_endings(ending: str, status: int) -> None:
    code = f"{START}def main():\n    print('x')\n    {ending}\nstart(main)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (status, "x\n")
    assert ("Error" in done.stderr) == (status == 1)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_every_program_begins_here(path: Path) -> None:
    last = ast.parse(path.read_text()).body[-1]
    assert isinstance(last, ast.If)
    assert ast.unparse(last.body[-1]).startswith("start(")
