# servsim: everything that a fresh machine with Python >= 3.11 and make needs.
#
#   make run    installs into .venv and runs the main job: three schedulers on the same requests
#   make test   installs and runs the tests; make test TESTS=tests/engine runs some of them
#   make lint   ruff and mypy
#   make bench  speed and memory; make bench-peers: beside the fastest other simulator
#   make clean  removes the environment and everything that was generated

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --timeout 60 --retries 10 install --quiet

# The real traces and measurements, where they are at hand (docs/data.md); tests that need them skip otherwise.
ifndef SERVSIM_DATA
ifneq ($(wildcard ../shared/data),)
export SERVSIM_DATA := $(abspath ../shared/data)
endif
endif

.PHONY: help run test lint bench bench-peers clean

help:
	@sed -n 's/^#   //p' Makefile

run: $(VENV)/.installed
	$(BIN)/servsim compare azure-conv-22rps --vary instance.scheduler.policy=fcfs,sjf,past_future --seeds 5 \
	  --out results/azure-conv-22rps --overwrite
	@echo "figures and tables: results/azure-conv-22rps"

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -n auto $(TESTS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/policies.py

bench-peers: $(VENV)/.installed
	$(BIN)/python benchmarks/peers.py

clean:
	rm -rf $(VENV) .venv-* results build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment is made once, and again only when what it depends on has changed.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "servsim needs Python 3.11 or later; give one with make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml setup.py | $(BIN)/python
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml setup.py | $(BIN)/python
	$(PIP) --editable '.[test,lint,predictors]'
	@touch $@ $(VENV)/.installed
