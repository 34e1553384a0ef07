"""Replace the package `analysis` in a script started by its path, as in `python analysis/report.py`.

Python then searches this folder for modules and finds this file. It adds the clone's root to the search path,
so that `sparsity_lab` need not be installed, and gives access to the package's modules.
"""

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(_HERE.parent))
__path__ = [str(_HERE)]
