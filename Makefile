# Everything sets itself up: a virtual environment in $(VENV), pinned by constraints.txt.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
# Test processes; two suit a laptop that does something else besides.
JOBS ?= 2
# Of `make soak`.
SESSIONS ?= 21
# Of `make crash`.
RUNS ?= 1000
SEED ?= 1
# Of `make evidence`: markets without an edge, and markets of every planted edge.
HISTORIES ?= 200
PLANTED ?= 6
STRONG ?= 30

# Where `make bench` installs what it compares with; Ratchet itself never looks there.
PEERS ?= .venv-bench

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH := $(shell grep -x 'torch==.*' constraints.txt)
TORCH_CPU := https://download.pytorch.org/whl/cpu
HAS_GPU := $(shell command -v nvidia-smi >/dev/null 2>&1 || ls /dev/nvidia0 >/dev/null 2>&1; echo $$?)
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help install demo test faults crash soak lint up bench evidence evidence-small clean

help: ## what this Makefile can do
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

install: $(STAMP) ## set up $(VENV); every other target does it when needed

demo: $(STAMP) ## the main job on bundled data, end to end, in about five minutes
	@$(BIN)/ratchet demo

up: $(STAMP) ## Prefect with every deployment, MLflow and the paper worker, until Ctrl-C
	@$(BIN)/ratchet up

lint: $(STAMP) ## style, types and the import line
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint ## everything CI checks
	$(BIN)/python -m pytest -n $(JOBS) --no-loadscope-reorder

ifdef SEEDS
faults: $(STAMP)
	@$(BIN)/python tests/jittered.py --seeds $(SEEDS) --first $(SEED) --jobs $(JOBS)
else
faults: $(STAMP) ## what breaks at a broker, against a fake TWS; SEEDS=20: its words in any order
	@$(BIN)/python -m pytest -n $(JOBS) tests/test_serving_faults.py \
	  --junitxml=.pytest_cache/faults.xml; status=$$?; \
	$(BIN)/python tests/fault_table.py .pytest_cache/faults.xml docs/reliability.md; exit $$status
endif

crash: $(STAMP) ## kill -9 between ledger and broker, RUNS times (1000), drawn from SEED (1)
	PYTHONPATH=tests $(BIN)/python -m crash --runs $(RUNS) --seed $(SEED) --jobs $(JOBS)

soak: $(STAMP) ## a month of minutes with ten agents and random faults; SESSIONS of 390 bars (21)
	$(BIN)/python -m bench.soak --sessions $(SESSIONS)

bench: $(PEERS)/.installed ## speed beside the peers, long; QUICK=1: short samples; ONLY=engine,ppo
	@$(BIN)/python -m bench.run --peers $(PEERS) $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY))

evidence: $(STAMP) ## measure the gate on markets with and without an edge: hours, resumable
	$(BIN)/python -m pipelines.calibration --histories $(HISTORIES) --planted $(PLANTED) --strong $(STRONG) \
	  --page docs/evidence.md

evidence-small: $(STAMP) ## the same on 20 histories, in minutes; fails where the gate errs too often
	$(BIN)/python -m pipelines.calibration --histories 5 --planted 1 --strong 1 --check

# Learners stand on Ratchet's packages (its folders are named in a .pth file), so that NumPy, torch
# and Gymnasium are the very same; vectorbt and NautilusTrader ask for others and have their own.
$(PEERS)/.installed: $(STAMP) $(wildcard bench/peers/*.txt)
	$(PYTHON) -m venv $(PEERS)
	$(BIN)/python -c 'import sys; print(*[p for p in sys.path if p.endswith("site-packages")], sep="\n")' \
	  > $$($(PEERS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/ratchet.pth
	$(PEERS)/bin/python -m pip install -q -c constraints.txt -r bench/peers/learners.txt
	$(PEERS)/bin/python -m pip install -q --no-deps -r bench/peers/bare.txt
	for name in vectorbt nautilus; do $(PYTHON) -m venv $(PEERS)/$$name && \
	  $(PEERS)/$$name/bin/python -m pip install -q -r bench/peers/$$name.txt || exit 1; done
	@touch $@

clean: ## remove $(VENV) and caches; state and data stay
	rm -rf $(VENV) $(PEERS) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.ratchet/*' -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no python3 found; install Python 3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
	  echo "error: Ratchet is tried on Python 3.11; $(PYTHON) is $$($(PYTHON) -V 2>&1)." >&2; \
	  echo "       Install it, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
ifeq ($(HAS_GPU),0)
	$(PIP) install -c constraints.txt "$(TORCH)"
else
	@# No NVIDIA driver: the CPU build has no CUDA packages. PyTorch's own index has it; elsewhere
	@# (another index, a mirror) the default one must do.
	$(PIP) install --timeout 10 --retries 0 --no-deps --index-url $(TORCH_CPU) "$(TORCH)" || \
	  $(PIP) install -c constraints.txt "$(TORCH)"
endif
	$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $(STAMP)
