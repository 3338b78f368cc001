# The one interface to this project; works with GNU make 3.81 and newer.  `make help` lists it.

EXP ?= stage4_people_focus
ARGS ?=
JOBS ?= 2
VENV ?= .venv
TORCH ?=
PORT ?= 6006
BENCH ?= speed doctor lever_cost sa2va

BIN := $(VENV)/bin
# Made again when the dependencies change, so that an old environment never runs new code.
STAMP := $(VENV)/.installed

# Ends with 0 in a Python that will do.  (A name that a version manager put there may start none.)
SUITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))

# The first Python that will do.  `make PYTHON=...` names another.
PYTHON ?= $(shell for p in python3.11 python3.12 python3 python; do \
	$$p -c '$(SUITS)' 2>/dev/null && { echo $$p; break; }; done)

.DEFAULT_GOAL := help
.PHONY: help env quick full test lint doctor doctor-selftest chaos bench readme tensorboard clean FORCE

##@ Start

help: ## this text
	@echo "make TARGET [NAME=VALUE ...]; what a target needs is installed into $(VENV) first"
	@awk 'BEGIN {FS = ":[^#]*## "} /^##@ / {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:[^#]*## / {printf "  %-16s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "Values"
	@echo "  EXP=NAME       experiment of conf/exp (default $(EXP)); for quick and full"
	@echo "  BENCH='...'    files of benchmarks/ (default $(BENCH)), with ARGS for each"
	@echo "  ARGS='...'     more overrides, e.g. ARGS='trainer.lr=1e-3 seed=1'; for test, pytest's"
	@echo "  JOBS=N         processes that run the tests (default $(JOBS))"
	@echo "  PYTHON=FILE    Python 3.11 or 3.12 to build the environment with"
	@echo "  TORCH='...'    pip arguments for another build of torch, installed before the rest:"
	@echo "                 TORCH='torch==2.13.0 --index-url URL', where pytorch.org's install page"
	@echo "                 gives the URL for your CUDA or for CPU only"

env: $(STAMP) ## the environment alone

# Make an empty environment in the folder $(1), unless there is one.
define new-environment
	@test -x $(1)/bin/python || test -n "$(PYTHON)" || { \
	  echo "error: no Python 3.11 or 3.12 found; install one, or name it: make PYTHON=FILE" >&2; \
	  exit 1; }
	@test -x $(1)/bin/python || $(PYTHON) -c '$(SUITS)' || { \
	  echo "error: PYTHON=$(PYTHON) does not start a Python 3.11 or 3.12; give the file of one," >&2; \
	  echo "  say of a version manager: make PYTHON=~/.pyenv/versions/3.12.1/bin/python" >&2; \
	  exit 1; }
	@test -x $(1)/bin/python || $(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  echo "error: $(PYTHON) cannot make environments; on Debian and Ubuntu install python3-venv" >&2; \
	  exit 1; }
	@test -x $(1)/bin/python || $(PYTHON) -m venv $(1) || { rm -rf $(1); exit 1; }
endef

# TORCH installs its build even where an environment stands, and lifts the version this was tried with.
$(STAMP): pyproject.toml constraints.txt $(if $(TORCH),FORCE)
	$(call new-environment,$(VENV))
	@echo "installing into $(VENV): a few minutes the first time"
	$(if $(TORCH),$(BIN)/python -m pip install -q $(TORCH))
	@sed '$(if $(TORCH),/^torch==/d)' constraints.txt > $(VENV)/constraints.txt
	$(BIN)/python -m pip install -q -c $(VENV)/constraints.txt -e '.[dev]'
	@touch $@

FORCE:

##@ Runs

quick: $(STAMP) ## the main job in a few minutes
	$(BIN)/python -m experiments.run +exp=$(EXP) trainer=quick $(ARGS)

full: $(STAMP) ## the main job with five seeds and its controls
	$(BIN)/python -m experiments.run +exp=$(EXP) trainer=full $(ARGS)

##@ Checks

test: $(STAMP) ## every test
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

lint: $(STAMP) ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

doctor: $(STAMP) ## is the main job well?  ARGS='model=... data_mix=...' as for the run itself
	$(BIN)/python -m experiments.run +exp=omni_doctor $(ARGS)

doctor-selftest: $(STAMP) ## plant each known fault, and show the doctor healthy runs
	$(BIN)/python -m tests.omni_rl.doctor.selftest $(ARGS)

chaos: $(STAMP) ## kill every experiment at random moments, and compare what it ends with
	$(BIN)/python -m benchmarks.chaos $(ARGS)

##@ Figures

bench: $(STAMP) ## speed, memory and cost against others, as ratios; into outputs/bench
	set -e; for name in $(BENCH); do $(BIN)/python -m benchmarks.$$name $(ARGS); done

readme: $(STAMP) ## fill README's tables: ARGS='stage4=RUN lever=RUN sa2va=RUN'
	$(BIN)/python -m benchmarks.readme $(ARGS)

tensorboard: $(STAMP) ## curves of every run in outputs/, on PORT=6006
	$(BIN)/tensorboard --logdir outputs --port $(PORT)

##@ Upkeep

clean: ## remove caches and builds; the environment and outputs/ stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . \( -path ./$(VENV) -o -path ./.envs \) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
