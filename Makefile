# `make demo` and `make test` are all it takes: both make .venv and install the package first, once.
#
#   make PYTHON=/path/to/python3.12     another interpreter
#   make CONSTRAINTS=                   a machine with a GPU: the newest torch instead of the CPU build; remembered

VENV := .venv
STAMP := $(VENV)/.installed
READERS := $(VENV)-readers
SAVED := $(VENV)/.constraints
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
CONSTRAINTS ?= $(if $(wildcard $(SAVED)),$(shell cat $(SAVED)),constraints/cpu.txt)
RUN := $(VENV)/bin
# Anomalib pulls torchvision in, which must not come into $(VENV): an environment of its own.
ANOMALIB := $(VENV)-anomalib
# Ray sees the libraries of $(VENV) and adds its own, as $(READERS) does.
RAY := $(VENV)-ray
DOCUMENTATION := $(VENV)-site
RELEASE := $(VENV)-release
LOWEST := $(VENV)-lowest
SHIM := torchvision_without_cuda

.DEFAULT_GOAL := help
.PHONY: help venv demo test site-tools site test-site notebooks test-notebooks dist test-release demo-of-wheel test-lowest test-studio test-clusters readers test-readers anomalib test-anomalib ray test-ray lint chaos chaos-short clean

help:
	@echo "make demo    make defects on factory parts, end to end, and name the report to open"
	@echo "make test    lint, types and tests"
	@echo "make test-readers    other tools' libraries read our exports, in $(READERS)"
	@echo "make test-studio   the studio's tests, in Chromium where it is installed"
	@echo "make test-clusters   many processes: workers, shards as schedulers start them, the snippets of docs/clusters.md"
	@echo "make lint    ruff and mypy alone"
	@echo "make chaos   signals, full disks, damaged files and hostile names, all of them; chaos-short: a minute of them"
	@echo "make site    the documentation as a site, in site/; test-site: and that it is whole without a network"
	@echo "make notebooks   examples/notebooks executed and shown anew; test-notebooks: only executed"
	@echo "make dist    wheel and source archive, in dist/; test-release: what is in them, and a whole run of the wheel; demo-of-wheel: its demo"
	@echo "make test-lowest   a whole run from the wheel with the lowest versions of everything but torch, in $(LOWEST)"
	@echo "make venv    only install into $(VENV)"
	@echo "make test-anomalib   tests with Anomalib itself, in $(ANOMALIB)"
	@echo "make test-ray    runs on a Ray cluster of two nodes on this machine, in $(RAY)"
	@echo "make clean   delete $(VENV), $(READERS), $(ANOMALIB), $(RAY), $(DOCUMENTATION), $(RELEASE), $(LOWEST), demo/, site/, dist/ and caches"

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
	@echo "open demo/run/report.html in a browser, or judge, prove and export it in the studio:"
	@echo "  $(RUN)/flawsmith studio demo/run"

# With its bytecode kept, no process compiles again what another has compiled.
test: lint
	PYTHONDONTWRITEBYTECODE= $(RUN)/python -m pytest -n 2

# Other tools' libraries see those of $(VENV) and add their own, so that none moves a version there.
$(READERS)/.installed: $(STAMP)
	@test -x $(READERS)/bin/python || $(RUN)/python -m venv $(READERS)
	@echo "installing what reads our exports into $(READERS) ..."
	@cd $(READERS)/lib/python*/site-packages && echo "import site; site.addsitedir('$(abspath $(VENV))/lib/$$(basename $$(dirname $$PWD))/site-packages')" > beneath.pth
	@$(READERS)/bin/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) \
	  "flawsmith[readers]"
	@touch $@

readers: $(READERS)/.installed

test-readers: readers
	OMP_NUM_THREADS=1 $(READERS)/bin/python -m pytest tests/readers

# The site's builder sees the libraries of $(VENV), so that none moves a version there.
$(DOCUMENTATION)/.installed: $(STAMP)
	@test -x $(DOCUMENTATION)/bin/python || $(RUN)/python -m venv $(DOCUMENTATION)
	@echo "installing what builds the site into $(DOCUMENTATION) ..."
	@cd $(DOCUMENTATION)/lib/python*/site-packages && echo "import site; site.addsitedir('$(abspath $(VENV))/lib/$$(basename $$(dirname $$PWD))/site-packages')" > beneath.pth
	@$(DOCUMENTATION)/bin/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) \
	  "flawsmith[site,notebooks]"
	@touch $@

site-tools: $(DOCUMENTATION)/.installed

site: site-tools
	$(DOCUMENTATION)/bin/python docs/site/build.py

test-site: site
	$(DOCUMENTATION)/bin/python -m pytest tests/site

# Executed, and shown as pages with pictures; the one with Anomalib in that environment.
notebooks: site-tools anomalib
	$(DOCUMENTATION)/bin/python examples/notebooks/render.py
	$(ANOMALIB)/bin/python -W ignore examples/notebooks/render.py train_anomalib

test-notebooks: site-tools
	OMP_NUM_THREADS=1 $(DOCUMENTATION)/bin/python examples/notebooks/render.py --out build/notebooks

dist: $(STAMP)
	rm -rf dist
	$(RUN)/python -m build --outdir dist

# The wheel in an environment that holds nothing else.
$(RELEASE)/.installed: dist
	rm -rf $(RELEASE) && $(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) dist/*.whl
	@touch $@

test-release: $(RELEASE)/.installed
	$(RUN)/python -m pytest tests/release
	OMP_NUM_THREADS=1 $(RELEASE)/bin/python -P tests/release/whole_run.py build/release patch_synthesis

demo-of-wheel: $(RELEASE)/.installed
	$(RELEASE)/bin/flawsmith demo --out build/demo

# The wheel with the first release of everything that pyproject.toml lets in, but torch; they have wheels for Python 3.11.
$(LOWEST)/.installed: dist constraints/lowest.txt
	rm -rf $(LOWEST) && $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -c constraints/lowest.txt dist/*.whl
	@touch $@

test-lowest: $(LOWEST)/.installed
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -P tests/release/whole_run.py build/lowest

test-studio: $(STAMP)
	@$(RUN)/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -e ".[studio,browser]"
	$(RUN)/python -m pytest tests/studio

test-clusters: $(STAMP)
	OMP_NUM_THREADS=1 $(RUN)/python -m pytest tests/clusters

lint: $(STAMP)
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

chaos: $(STAMP)
	FLAWSMITH_CHAOS=full $(RUN)/python -m pytest tests/chaos --chaos-results

chaos-short: $(STAMP)
	$(RUN)/python -m pytest tests/chaos

anomalib: $(ANOMALIB)/.installed

$(ANOMALIB)/.installed: pyproject.toml $(wildcard constraints/cpu.txt) .ci/$(SHIM).py
	@test -x $(ANOMALIB)/bin/python || $(PYTHON) -m venv $(ANOMALIB)
	@echo "installing flawsmith and Anomalib into $(ANOMALIB) (some minutes the first time) ..."
	@$(ANOMALIB)/bin/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) \
	  -e ".[anomalib,notebooks]" "pytest>=9"
	@# A torch without CUDA and PyPI's torchvision do not fit; .ci/$(SHIM).py says what is done about it.
	@$(ANOMALIB)/bin/python -c "import torchvision" 2>/dev/null || { \
	  site="$$($(ANOMALIB)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" && \
	  cp .ci/$(SHIM).py "$$site/" && echo "import $(SHIM)" > "$$site/$(SHIM).pth"; }
	@$(ANOMALIB)/bin/python -W ignore -c "import anomalib.models; print('Anomalib', __import__('anomalib').__version__)"
	@touch $@

test-anomalib: anomalib
	OMP_NUM_THREADS=1 $(ANOMALIB)/bin/python -W ignore examples/notebooks/render.py --out build/notebooks train_anomalib
	OMP_NUM_THREADS=1 $(ANOMALIB)/bin/python -m pytest -W ignore -k anomalib tests/with_anomalib tests/contract/test_detectors.py

ray: $(RAY)/.installed

$(RAY)/.installed: $(STAMP)
	@test -x $(RAY)/bin/python || $(RUN)/python -m venv $(RAY)
	@echo "installing Ray into $(RAY) ..."
	@cd $(RAY)/lib/python*/site-packages && echo "import site; site.addsitedir('$(abspath $(VENV))/lib/$$(basename $$(dirname $$PWD))/site-packages')" > beneath.pth
	@$(RAY)/bin/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) \
	  "flawsmith[ray]"
	@$(RAY)/bin/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) \
	  "flawsmith[ray-tests]" || echo "WARNING: what stands for S3 and Google Cloud Storage could not be installed: its tests are skipped" >&2
	@touch $@

test-ray: ray
	OMP_NUM_THREADS=1 $(RAY)/bin/python -m pytest tests/ray

clean:
	rm -rf $(VENV) $(READERS) $(ANOMALIB) $(RAY) $(DOCUMENTATION) $(RELEASE) $(LOWEST) demo site build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
