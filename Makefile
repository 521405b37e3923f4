# `make` alone lists the targets. Everything works from a fresh clone: each target makes what it needs.
.PHONY: help venv engine image up down status plan fmt lint types property integration check test kubernetes docker29 docs bench clean
.DEFAULT_GOAL := help

VENV := .venv/bin
# Spread over workers, twice as many as CPUs; what shares a fixture stays together (tests/conftest.py).
PYTEST := $(VENV)/python -m pytest -n auto --no-loadscope-reorder

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: ## .venv with everything the project needs
	@.ci/venv

engine: venv ## a Docker engine: finds one or, as root on Debian, installs and starts it
	@$(VENV)/python -m launcher engine

image: engine ## the images claude-bottle-sidecars and claude-bottle-agent
	@images/bundle/build

up: image ## a demonstration bottle, healthy and running, and what an agent's requests got
	@$(VENV)/python -m launcher demo

down: venv ## takes every bottle of yours down, with all it left behind
	@$(VENV)/python -m launcher down --all

status: venv ## the bottles that are there
	@$(VENV)/python -m launcher status

fmt: venv ## formats the code
	@$(VENV)/ruff format .
	@$(VENV)/ruff check --fix .

lint: venv ## formatting and lint
	@$(VENV)/ruff format --check --quiet .
	@$(VENV)/ruff check --quiet .

types: venv ## types
	@$(VENV)/mypy

property: venv ## the tests that need neither Docker nor root
	@$(PYTEST) tests/property

check: lint types property ## all of the quick checks

integration: image ## the tests on real processes and in real containers
	@$(PYTEST) tests/integration

test: venv lint types image ## everything: lint, types, images, all tests
	@$(PYTEST)

kubernetes: venv ## compiles a cluster for the tests from Kubernetes' Go modules (slow, once)
	@$(VENV)/python -m tools.engines pause kubernetes

docker29: venv ## compiles Docker 29 for the tests from Moby's Go module (slow, once)
	@$(VENV)/python -m tools.engines docker29

docs: venv ## draws those pages of docs/ and share/ anew that are made from the code
	@$(VENV)/python -m bottle_init.testing --diagram > docs/state-machine.md
	@$(VENV)/python -m tools.arrows > docs/imports.md
	@$(VENV)/python -m tools.bundle_file
	@$(VENV)/python -m tools.cli_page
	@$(VENV)/python -m tools.engines_page
	@$(VENV)/python -m tools.events_page
	@$(VENV)/python -m tools.completion
	@$(VENV)/python -m tools.man_page
	@$(VENV)/python -m tools.manifest_page
	@$(VENV)/python -m tools.timeline

bench: image ## the benchmarks, side by side with the peers
	@$(VENV)/python -m benchmarks $(BENCH)
	@$(if $(findstring --only,$(BENCH)),,$(VENV)/python -m benchmarks.data_path $(filter --short,$(BENCH)))
	@$(if $(findstring --only,$(BENCH)),,$(VENV)/python -m benchmarks.bundle $(filter --short,$(BENCH)))
	@$(if $(findstring --only,$(BENCH)),,$(VENV)/python -m benchmarks.bottles $(filter --short,$(BENCH)))

clean: ## removes what make made in this directory
	rm -rf .venv .venv.lock .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
