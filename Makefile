# Python 3.11 or newer, make and a network to a package index are all that these targets need.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help venv demo test lint bench proto clean

help:
	@echo "make venv   make .venv and install everything into it"
	@echo "make demo   start the engine and replay 41,188 real calls through it"
	@echo "make test   run every test"
	@echo "make lint   ruff and the strict type checker"
	@echo "make bench  run every benchmark"
	@echo "make proto  generate the opportune.v1 stubs from proto/"
	@echo "make clean  remove .venv and all caches, the compiled kernels too"

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Opportune needs Python 3.11 or newer; set PYTHON=…")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -c 'import engine.decide, features, models'  # compiles the kernels once
	@touch $(STAMP)

demo: venv
	$(BIN)/opportune demo

test: venv
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder  # the longest come first

lint: venv
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: venv
	$(BIN)/python -m bench all

proto: venv
	$(BIN)/python proto/generate.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
	find bench engine features models opportune proto tests -name __pycache__ -prune -exec rm -rf {} +
