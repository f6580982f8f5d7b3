# One target per chore. The first run makes .venv from pinned, hashed requirements; later runs start at once.
# Needs: make, and Python 3.11 or newer with venv.

DURATION ?=
RATE ?= 50
MINUTES ?= 8
ROUNDS ?=
LOCK ?= --upgrade
SEED ?=
PYTEST ?=
EMBEDDED := not stack and not browser and not compose and not versions
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for what in "sys, venv, ensurepip" sys; do for p in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$p -c "import $$what; sys.exit(sys.version_info < (3, 11))" 2>/dev/null && { command -v $$p; exit; }; done; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help demo test model soak bench lint types format docs lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.run ## a PostgreSQL with a claims book, captured live; DURATION=30 ends by itself
	@$(BIN)/claimhouse demo --rate $(RATE) $(if $(DURATION),--duration $(DURATION)s)

test: $(VENV)/.dev ## all embedded tests, 3 rounds of the model among them
	@$(BIN)/python -m pytest -n auto --dist worksteal -m "$(EMBEDDED)" $(PYTEST)

model: $(VENV)/.dev ## the model-based test for MINUTES=8, or ROUNDS=n, from SEED=n
	@$(BIN)/python tests/soak.py --minutes $(MINUTES) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SEED),--seed $(SEED))

soak: ## the model-based test for an hour, or MINUTES=n
	@$(MAKE) --no-print-directory model MINUTES=$(if $(filter command line,$(origin MINUTES)),$(MINUTES),60)

bench: $(VENV)/.dev ## the figures, into build/bench.json
	@$(BIN)/python -m bench $(BENCH)

lint: $(VENV)/.dev ## ruff and the rule of imports
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports --no-cache

types: $(VENV)/.dev ## pyright
	@$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.dev ## put the code into the one format
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

docs: $(VENV)/.dev ## write docs/reference from the code, and docs/acceptance.md from the tests
	@$(BIN)/python docs/reference/generate.py && $(BIN)/python -m tests.acceptance.page

lock: $(VENV)/.dev ## pin all requirements anew
	@$(BIN)/python -m pip --quiet install uv && for set in run "dev --group dev" "stack --group dev --extra stack" \
	"notebooks --group dev --extra notebooks -c requirements/dev.txt"; do \
	set -- $$set; name=$$1; shift; $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-header --no-emit-index-url --extra demo --extra console --group build "$$@" $(LOCK) pyproject.toml \
	-o requirements/$$name.txt || exit 1; done

clean: ## remove what make made, but not the caches of pip
	rm -rf $(VENV) .demo build .pytest_cache .ruff_cache .hypothesis

# A machine without ensurepip (Debian without python3-venv) gets the one line that mends it.
$(VENV)/bin/python:
	@[ -n "$(PYTHON)" ] || { echo "error: no Python 3.11 or newer was found; name one: make PYTHON=/path/to/python3" >&2; exit 2; }
	@"$(PYTHON)" -m venv $(VENV) >/dev/null 2>&1 || { rm -rf $(VENV); \
	echo "error: $(PYTHON) cannot make a virtual environment with pip" >&2; \
	echo "hint: apt-get install -y python3-venv   (on Debian and Ubuntu), then make again" >&2; exit 2; }

$(VENV)/.run: requirements/run.txt pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV), once" >&2
	@$(PIP) install --no-compile --require-hashes -r requirements/run.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

-include *.mk

$(VENV)/.dev: requirements/dev.txt $(VENV)/.run
	@$(PIP) install --no-compile --require-hashes -r requirements/dev.txt
	@touch $@
