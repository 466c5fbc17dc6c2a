# Everything a person does with this checkout. `make help` lists it.

PYTHON ?= $(firstword $(shell command -v python3.11 || command -v python3))
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
FLINK := .venv-flink

# Ten processes import the same libraries: without cached bytecode each would compile them again.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup flink demo test lint format browser constraints clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make .venv, install everything, fetch Kafka (once)

$(READY): pyproject.toml constraints.txt deploy/backend.py streams/kernel.pyx $(wildcard streams/*.pxi) bentos/stages/scan.pyx
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "Freshet needs Python 3.11, and $(PYTHON) is " + sys.version.split()[0] + ": make setup PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -c 'from freshet.settings import Settings; from freshet.stack.kafka import jars; jars(Settings().cache_dir)'
	touch $(READY)

flink: $(FLINK)/.ready ## Make .venv-flink, for `freshet flink` (850 MB)

$(FLINK)/.ready: $(READY) constraints-flink.txt
	test -x $(FLINK)/bin/python || $(BIN)/uv venv --quiet --python $(BIN)/python $(FLINK)
	$(BIN)/uv pip install --quiet --python $(FLINK)/bin/python --constraint constraints-flink.txt --group flink
	touch $@

demo: setup ## See it all; ONCE=1 runs it without a person, measures, checks, and stops
	$(BIN)/freshet demo $(if $(filter-out 0,$(ONCE)),--once)

test: setup lint browser ## Everything that must hold
	$(BIN)/python -m pytest

lint: setup ## Style, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## Lay out the code
	$(BIN)/ruff format .

# The browser test needs Debian's chromium. It is installed where that is allowed; elsewhere the test skips, unless
# FRESHET_REQUIRE_BROWSER says that it must not.
browser:
	@if command -v chromium > /dev/null; then true; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		(apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium > /dev/null) \
			|| { echo "chromium could not be installed"; test -z "$(FRESHET_REQUIRE_BROWSER)"; }; \
	else echo "no chromium, and not root: the browser test will skip"; test -z "$(FRESHET_REQUIRE_BROWSER)"; fi

constraints: setup ## Pin what is installed now
	(echo '# The versions that Freshet was tried with. Made by: make constraints'; $(BIN)/uv pip freeze --python $(BIN)/python | grep -E '^[A-Za-z0-9._-]+==') > constraints.txt

clean: ## Stop the stack; remove .venv, .freshet and caches
	test ! -x $(BIN)/freshet || $(BIN)/freshet down
	rm -rf $(VENV) $(FLINK) .freshet build streams/kernel.c bentos/stages/scan.c streams/*.so bentos/stages/*.so *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
