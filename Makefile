# Everything runs in a private environment, .venv, made on first use. `make` alone lists what there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo demo-net test lint unit slow whole wheel browser referee bench torture clean

BIN := .venv/bin
READY := .venv/.ready
PYTEST_ARGS ?=
MINUTES ?= 1

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

$(READY): pyproject.toml .ci/constraints.txt .ci/environment
	@.ci/environment

demo: $(READY) ## a machine at a blue screen in another process, dumped twice, verified
	@$(BIN)/python -m demo.serial_line

demo-net: $(READY) ## the same over the network (KDNET), with an address of its own where that can be had
	@$(BIN)/python -m demo.network

test: lint unit wheel ## lint, then every test that needs no Windows debugger, then the built wheel in an empty environment

lint: $(READY) ## ruff, mypy, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

unit: $(READY) ## pytest without the referee, the browser and what is slow (PYTEST_ARGS='-k name' narrows it)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not referee and not slow and not browser" $(PYTEST_ARGS)

slow: $(READY) ## what takes long: hundreds of bad lines, killed processes, other readers of dumps, every page of the docs
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "slow and not referee and not browser" $(PYTEST_ARGS)

whole: $(READY) ## the same with every random machine there is, not only those that a gate has time for
	KDBRIDGE_WHOLE=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "slow and not referee and not browser" $(PYTEST_ARGS)

wheel: $(READY) ## build the wheel, install it into an empty environment, start it there
	$(BIN)/python .ci/check_wheel.py

browser: $(READY) ## the page of an analysis in headless Chromium, which is installed if need be
	@.ci/browser $(PYTEST_ARGS)

referee: $(READY) ## Microsoft's debugger engine opens our dumps and attaches to our simulator
	@.ci/referee $(PYTEST_ARGS)

bench: $(READY) ## throughput and memory, as ratios in one run
	$(BIN)/python -m benchmarks

torture: $(READY) ## bad lines and hostile input by random seed, for MINUTES=1
	$(BIN)/python -m tests.torture --minutes $(MINUTES)

clean: ## remove all that make made
	rm -rf .venv build dist out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
