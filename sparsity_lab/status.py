"""Print the status of a sweep's jobs. It works at any time, on any machine that sees the folder.

python -m sparsity_lab.status width_l0
python -m sparsity_lab.status single --root elsewhere
"""

import argparse
import sys

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.names import SINGLE, destination
from sparsity_lab.core.program import start
from sparsity_lab.sweep.job_status import FOLDER
from sparsity_lab.sweep.status_table import jobs_of, table_with_trials


def main() -> int:
    """Run the command. Return exit status 1 if a job has failed, 2 if the sweep is unknown."""
    parser = argparse.ArgumentParser(
        prog="sparsity_lab.status", description="Print the status of a sweep's jobs."
    )
    parser.add_argument("sweep", help="name of the sweep; single: the runs without a sweep")
    parser.add_argument("--root", default="runs", help="the folder of runs (runs)")
    arguments = parser.parse_args()
    sweep = None if arguments.sweep == SINGLE else arguments.sweep
    try:
        folder = destination(arguments.root, sweep).folder / FOLDER
        sys.stdout.write(table_with_trials(folder) + "\n")
        return int(any(state == "failed" for state, _, _ in jobs_of(folder)))
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2


if __name__ == "__main__":
    start(main)
