# Everything a newcomer needs:  make demo  and  make test.  Everything before a commit:  make check.
#
# The environment lands in .venv with the first target and is brought up to date when pyproject.toml changes.
#   PYTHON=python3.12      another interpreter (3.11 or newer)
#   PIP_ARGS="..."         more words for pip install, for example --extra-index-url with CPU builds of torch

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTHON ?= $(shell for p in python3 python python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
CONSTRAINTS := $(shell nvidia-smi -L >/dev/null 2>&1 || echo -c constraints-cpu.txt)
WORKERS ?= 2
CASES ?= 10000

.PHONY: install demo test check check-machines check-server check-server format lint types layers fix wheel clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints-cpu.txt
	@test -n "$(PYTHON)" || { echo "Expected Python 3.11 or newer on the PATH, found none: install it, or name one with PYTHON=..."; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) $(PIP_ARGS) -e '.[dev]'
	@touch $@

demo: install
	$(BIN)/g2vlm demo

test: install
	$(BIN)/pytest -n $(WORKERS)

check: format lint types layers test

# The suite as other machines would run it; takes the night, and goes on where it was stopped.
#   OPTIONS="--scope fast --only avx2 --python 3.12"
check-machines: install
	$(BIN)/python scripts/check_machines.py --workers $(WORKERS) $(OPTIONS)

# What strangers and accidents do to the service: kills at random instants, broken inputs. Hours; the second
# part goes on where it was.  KILLS=10 INPUTS=10000 for less
KILLS ?= 200
INPUTS ?= 1000000
check-server: install
	$(BIN)/python scripts/check_store_kills.py --kills $(KILLS)
	$(BIN)/python scripts/fuzz_inputs.py --inputs $(INPUTS) --state outputs/fuzz.json --keep outputs/fuzz-crashes

# Valid and invalid requests to a running service, by schemathesis (install it beside): no endpoint is left out.
check-server: install
	$(BIN)/python -c 'import schemathesis' 2>/dev/null || $(BIN)/python -m pip install --quiet $(CONSTRAINTS) $(PIP_ARGS) 'schemathesis>=4.32'
	$(BIN)/python scripts/check_server.py --cases $(CASES)

format: install
	$(BIN)/ruff format --check .

lint: install
	$(BIN)/ruff check .

types: install
	$(BIN)/mypy

layers: install
	$(BIN)/lint-imports

fix: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheel: install
	$(BIN)/python -m build --wheel --outdir dist

clean:
	rm -rf dist build outputs .mypy_cache .ruff_cache .import_linter_cache
