"""Write a task's circuits as one HTML page that opens from disk, or as a figure.

    python analysis/view_circuit.py RUN --task single_double_quote [--out PAGE.html]
    python analysis/view_circuit.py RUN --task single_double_quote --svg FIGURE.svg [--target NATS]

The page is RUN/pages/TASK.html unless --out says otherwise.
"""

from collections.abc import Sequence
from pathlib import Path

from analysis import program
from analysis.circuit_page import load_view
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import write_text
from sparsity_lab.core.program import start
from sparsity_lab.core.run_folder import RunFolder
from sparsity_lab.viewer.page import figure, page


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = program.parser(__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--task", required=True, help="the task whose circuits are shown")
    parser.add_argument("--out", type=Path, help="the page; default: RUN/pages/TASK.html")
    parser.add_argument("--svg", type=Path, help="write one circuit as a figure instead of the page")
    parser.add_argument("--target", type=float, help="with --svg: the circuit's target loss, in nats")
    options = parser.parse_args(arguments)
    try:
        view = load_view(options.run, options.task)
        path = options.svg or options.out or RunFolder(options.run).page(options.task)
        write_text(path, figure(view, options.target) if options.svg else page(view))
    except UserError as error:
        return program.refuse(error)
    program.say(f"wrote {path}")
    return 0


if __name__ == "__main__":
    start(main)
