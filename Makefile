# The project's commands; `make` lists them. Everything is installed into $(VENV).
PYTHON ?= python3
VENV ?= .venv
ARGS ?=

IN_VENV = "$(VENV)/bin/python"
# --no-compile saves the minute that pip spends on byte-compiling unused modules.
INSTALL = $(IN_VENV) -m pip install --disable-pip-version-check --no-compile --constraint constraints.txt --editable

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help frontier study smoke test check format clean

help:
	@echo "make frontier   run the sweep width_l0 and draw its pictures; to resume, repeat the command"
	@echo "make study      run the sweep frontier, some days on two cores, and draw its pictures; to resume, repeat the command"
	@echo "make smoke      the whole pipeline on a small model"
	@echo "make test       run the tests; ARGS='-k wheel' selects some"
	@echo "make check      lint, check format and types; changes no file"
	@echo "make format     fix lint and format"
	@echo "make clean      remove .venv, caches and builds; keep runs/"
	@echo "PYTHON=python3.12 chooses the interpreter (3.11 or newer), VENV=folder the environment"

# The pictures are drawn even if a job failed; the exit status reports the failure.
frontier: $(VENV)/.installed
	@failed=0; \
	$(IN_VENV) -m sparsity_lab.run +sweep=width_l0 $(ARGS) -m || failed=$$?; \
	$(IN_VENV) analysis/plot_frontier.py --sweep width_l0 || failed=$$?; \
	if [ $$failed -ne 0 ]; then echo "make frontier: a step failed, see above" >&2; fi; \
	exit $$failed

# Tables and pictures show the jobs that are done, by their records: also those that another machine has run.
study: $(VENV)/.installed
	@failed=0; \
	$(IN_VENV) -m sparsity_lab.run +sweep=frontier $(ARGS) -m || failed=$$?; \
	$(IN_VENV) analysis/plot_frontier.py docs/frontier/records --sweep frontier --out docs/frontier || failed=$$?; \
	if [ $$failed -ne 0 ]; then echo "make study: not finished, see above; python -m sparsity_lab.status frontier" >&2; fi; \
	exit $$failed

smoke: $(VENV)/.installed
	$(IN_VENV) -m sparsity_lab.run experiment=smoke $(ARGS)

# One single-threaded process per core, at most 4. ARGS='-n 0' uses one process.
# Bytecode is kept even if the environment says otherwise: the tests start about a hundred processes.
test: export OMP_NUM_THREADS = 1
test: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/.installed-test
	$(IN_VENV) -m pytest --numprocesses auto --maxprocesses 4 --dist loadscope $(ARGS)

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
