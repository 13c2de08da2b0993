# `make demo` and `make test` are all it takes: both make .venv and install the package first, once.
#
#   make PYTHON=/path/to/python3.12     another interpreter
#   make CONSTRAINTS=                   a machine with a GPU: the newest torch instead of the CPU build; remembered

VENV := .venv
STAMP := $(VENV)/.installed
SAVED := $(VENV)/.constraints
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
CONSTRAINTS ?= $(if $(wildcard $(SAVED)),$(shell cat $(SAVED)),constraints/cpu.txt)
RUN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-studio lint clean

help:
	@echo "make demo    make defects on factory parts, end to end, and name the report to open"
	@echo "make test    lint, types and tests"
	@echo "make test-studio   the studio's tests, in Chromium where it is installed"
	@echo "make lint    ruff and mypy alone"
	@echo "make venv    only install into $(VENV)"
	@echo "make clean   delete $(VENV), demo/ and caches"

# Another choice of constraints than the one that was installed is a reason to install again.
ifneq ($(shell cat $(SAVED) 2>/dev/null),$(CONSTRAINTS))
.PHONY: $(STAMP)
endif

venv: $(STAMP)

$(STAMP): pyproject.toml $(wildcard constraints/cpu.txt)
	@test -n "$(PYTHON)" || { echo "no python3 found; install Python 3.11 or newer"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "flawsmith needs Python 3.11 or newer and $(PYTHON) is $$($(PYTHON) -V); name another: make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(RUN)/python || $(PYTHON) -m venv $(VENV) || { \
	  echo "the virtual environment cannot be made; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "installing flawsmith into $(VENV) (some minutes the first time) ..."
	@$(RUN)/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -e ".[dev,deliver,studio]"
	@echo "$(CONSTRAINTS)" > $(SAVED)
	@touch $@
	@$(RUN)/python -m flawsmith --version

demo: $(STAMP)
	$(RUN)/flawsmith demo --out demo
	@echo "open demo/run/report.html in a browser"

test: lint
	$(RUN)/python -m pytest -n 2

test-studio: $(STAMP)
	@$(RUN)/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -e ".[studio,browser]"
	$(RUN)/python -m pytest tests/studio

lint: $(STAMP)
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
