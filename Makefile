# The two commands that matter: `make train` and `make test`. Everything they need lands in .venv and .cache.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# A container may be lent any of the GPUs, so none of their own nodes is looked for.
GPU    := $(wildcard /dev/nvidiactl)
PINS   := $(if $(GPU),,-c constraints.txt)
OUT    ?=
SEED   ?= 0
# Workers of the tests; each wants a core and up to 6 GB.
WORKERS ?= 2
# The numbers in these tests are a CPU's, and workers would share a GPU's memory.
PYTEST := CUDA_VISIBLE_DEVICES= $(BIN)/python -m pytest -n $(WORKERS) --no-loadscope-reorder

.PHONY: help install train test test-all check format lean oracle bench gpu clean
help: ## what there is to make
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

install: $(STAMP) ## the package with everything for training and tests, into .venv

$(STAMP): pyproject.toml constraints.txt scripts/system-packages
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "agenthub needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@sh scripts/system-packages
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(PINS) -e '.[dev]'
	@touch $(STAMP)

train: $(STAMP) ## train the tiny policy on really executed code; prints before and after, writes a report
	$(BIN)/agenthub train simpletir --suite arithmetic --set seed=$(SEED) $(if $(OUT),--out $(OUT))

check: $(STAMP) ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Without a Lean of the machine's own, the tests use the WebAssembly build; where it cannot be had they are skipped by name.
lean: $(STAMP)
	@$(BIN)/python scripts/lean-toolchain --unless-native || echo "no Lean toolchain: its tests are skipped by name"

# verl's losses and advantages, as an oracle of ours; one folder without its dependencies.
oracle: $(STAMP)
	@test -d .cache/verl/verl || PIP="$(BIN)/python -m pip" sh scripts/verl-oracle || echo "no verl here: its tests are skipped by name"

test: check lean oracle ## everything that must hold, in minutes
	$(PYTEST) -m "not slow and not bench and not gpu"

test-all: check lean oracle ## also what takes long
	$(PYTEST) -m "not bench and not gpu"

format: $(STAMP) ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## the quick form of every benchmark
	for file in benchmarks/[a-z]*.py; do $(BIN)/python $$file --quick || exit 1; done

gpu: $(STAMP) ## on a GPU: its tests, then tokens a second, MFU, memory and seconds of a push as one table
	$(BIN)/python benchmarks/gpu_table.py

clean: ## remove what was built, runs excepted
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build dist *.egg-info
