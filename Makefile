# Two commands matter: `make demo` and `make test`. Both make the environment first.

.DEFAULT_GOAL := help
.PHONY: help env bench-env demo test test-slow lint clean

HERE := $(CURDIR)/.venv
# An environment that is active is used as it is, and its torch kept; else .venv is made here.
VENV := $(if $(filter-out $(HERE),$(VIRTUAL_ENV)),$(VIRTUAL_ENV),$(HERE))
PY := $(VENV)/bin/python
STAMP := $(VENV)/.anyformer-made
ifndef DEMO
DEMO := runs/demo-$(shell date +%Y%m%d-%H%M%S)
endif
JOBS ?= 2

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

env: $(STAMP) ## make the environment: .venv, unless one is active

$(HERE)/bin/python:
	@for python in python3.11 python3 python3.12 python3.13 python; do \
	  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  $$python -m venv $(HERE) && exit; \
	  rm -rf $(HERE); echo "$$python cannot make an environment; on Debian: apt install python3-venv" >&2; exit 1; \
	done; echo "Python 3.11 or later is needed and none was found" >&2; exit 1

$(STAMP): pyproject.toml constraints.txt | $(PY)
	@if [ $(VENV) != $(HERE) ] && $(PY) -c 'import torch' 2>/dev/null; \
	  then grep -v '^torch==' constraints.txt; else cat constraints.txt; fi >$(STAMP).txt
	$(PY) -m pip install --disable-pip-version-check --quiet -c $(STAMP).txt -e '.[test]'
	@mv $(STAMP).txt $(STAMP)

bench-env: env ## install what `anyformer bench` measures beside ours
	$(PY) -m pip install --disable-pip-version-check --quiet -c $(STAMP) -e '.[bench]'

demo: env ## train a decoder on Python's own documentation, and let it write
	$(VENV)/bin/anyformer train demo --out $(DEMO)
	$(VENV)/bin/anyformer generate $(DEMO) --tokens 300
	$(VENV)/bin/anyformer evaluate $(DEMO)
	@echo "The run is in $(DEMO). Go on with: $(VENV)/bin/anyformer generate $(DEMO) 'The '"

test: env lint ## everything a commit has to pass
	$(PY) -m pytest -n $(JOBS)

test-slow: env ## the tests that take minutes each
	$(PY) -m pytest -n $(JOBS) -m slow

lint: env ## format, lint and types
	$(PY) -m ruff format --check --quiet
	$(PY) -m ruff check --quiet
	$(PY) -m pyright --pythonpath $(PY)

clean: ## remove what was made, but no run
	rm -rf $(HERE) build *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
