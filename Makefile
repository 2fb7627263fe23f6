# The commands of this project; `make help` lists them.
# The first that runs and is new enough; a name in PATH may be a mere shim. Or: make PYTHON=/path/to/python3
ifndef PYTHON
PYTHON := $(shell for name in python3 python3.13 python3.12 python3.11; do \
  $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && exit; done; echo python3)
endif
BIN := .venv/bin
MAKEFLAGS += --no-print-directory

.PHONY: help demo demo-stop test test-quick scenario lint bench docs locks format clean venv images packages setup

help: ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

demo: ## a throw-away host with a real Flower; prints an address and a login
	@$(MAKE) -j2 venv images
	@$(BIN)/python tests/demo.py

demo-stop: venv ## remove the demo's host
	@$(BIN)/python tests/demo.py stop

test: ## every test: lint, unit, add-on, and all Molecule scenarios
	@.ci/run

test-quick: venv ## lint and unit tests: no Docker, a minute
	@$(BIN)/python tests/run.py --quick

scenario: setup ## one Molecule scenario: make scenario S=default
	@$(BIN)/python tests/run.py --scenario $(or $(S),default)

lint: venv ## the linters only
	@$(BIN)/python tests/run.py --lint

bench: setup ## what a run of the role, masking, the collector and the pages cost, beside something named
	@$(BIN)/python tests/bench/redact.py
	@$(BIN)/python tests/bench/collector_scrape.py
	@$(BIN)/python tests/bench/collector_load.py
	@$(BIN)/python tests/bench/history_pages.py --rows 1000000
	@$(BIN)/python tests/bench/bench.py

docs: venv ## write the generated parts of README.md and docs/metrics.md
	@$(BIN)/python scripts/variables_table.py
	@$(BIN)/python scripts/metrics_table.py

format: venv ## let ruff format the Python
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

locks: venv ## resolve roles/flower/files/locks anew
	@scripts/update-locks.sh

clean: ## remove what make made: the demo, images, caches, .venv
	@-test ! -x $(BIN)/python || $(BIN)/python tests/demo.py stop
	@$(PYTHON) tests/testbed/testbed.py clean
	@rm -rf .venv .test-logs .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .ansible

# Set-up. The scripts look for themselves whether there is something to do.
setup:
	@$(MAKE) -j3 venv images packages

venv:
	@$(PYTHON) tests/testbed/tools.py venv

images:
	@$(PYTHON) tests/testbed/testbed.py images

packages:
	@$(PYTHON) tests/testbed/tools.py packages
