# The commands of this project; `make` lists them. Everything is installed into $(VENV), nothing outside it.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=

IN_VENV = "$(VENV)/bin/python"
# Without --no-compile pip spends a minute on modules that nobody imports.
INSTALL = $(IN_VENV) -m pip install --disable-pip-version-check --no-compile --constraint constraints.txt --editable

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help frontier smoke test check format clean

help:
	@echo "make frontier   run the sweep width_l0 and draw its pictures (again: it goes on where it stopped)"
	@echo "make smoke      the whole pipeline in small"
	@echo "make test       the tests; ARGS='-k wheel' chooses some"
	@echo "make check      lint, format and types; reports, changes nothing"
	@echo "make format     lint and format, and change what can be changed"
	@echo "make clean      remove .venv, caches and builds; runs/ stays"
	@echo "PYTHON=python3.12 chooses the interpreter (3.11 or newer), VENV=folder the environment"

# A sweep of which a point failed is drawn all the same; the exit status tells.
frontier: $(VENV)/.installed
	@failed=0; \
	$(IN_VENV) -m sparsity_lab.run +sweep=width_l0 $(ARGS) -m || failed=$$?; \
	$(IN_VENV) analysis/plot_frontier.py --sweep width_l0 || failed=$$?; \
	if [ $$failed -ne 0 ]; then echo "make frontier: not all of it worked, see above" >&2; fi; \
	exit $$failed

smoke: $(VENV)/.installed
	$(IN_VENV) -m sparsity_lab.run experiment=smoke $(ARGS)

# A process a core, of one thread each. ARGS='-n 0': one process.
test: export OMP_NUM_THREADS = 1
test: $(VENV)/.installed-test
	$(IN_VENV) -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal $(ARGS)

check: $(VENV)/.installed-test
	$(IN_VENV) -m ruff check .
	$(IN_VENV) -m ruff format --check .
	$(IN_VENV) -m mypy

format: $(VENV)/.installed-test
	$(IN_VENV) -m ruff check --fix .
	$(IN_VENV) -m ruff format .

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist

$(VENV)/.made:
	@"$(PYTHON)" -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("make: $(PYTHON) is Python %d.%d; needed: 3.11 or newer, as in make PYTHON=python3.11" % v[:2])'
	"$(PYTHON)" -m venv "$(VENV)"
	@touch "$@"

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/.made
	$(INSTALL) .
	@touch "$@"

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(VENV)/.made
	$(INSTALL) '.[test]'
	@touch "$(VENV)/.installed" "$@"
