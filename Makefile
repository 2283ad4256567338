# Everything a person or a machine does with a checkout. The default lists it.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check install -c constraints.txt
PYTEST ?= $(RUN) -m pytest
PYTEST_FLAGS ?= -n auto --maxprocesses=4 --dist loadgroup

# fbgemm-gpu-cpu has Linux wheels only: elsewhere the sharded training is left out, and its tests skip.
ifeq ($(shell uname -s),Linux)
EXTRAS := approximate,dev,docs,notebooks,spark,torchrec,tracking,tune
STAND_IN := ./packaging/fbgemm-gpu
else
EXTRAS := approximate,dev,docs,notebooks,spark,tracking,tune
endif

# Spark's workers start `python3` unless they are told.
export PYSPARK_PYTHON ?= $(abspath $(RUN))

.PHONY: help demo test coverage test-slow test-spark lint format constraints wheel release-check docs clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(VENV)/.installed ## install, then the main job on MovieLens-100K, into runs/demo
	$(VENV)/bin/recsparse run pipelines/ml-100k.toml

test: lint ## install, lint, type-check, and all tests but the slow ones
	$(PYTEST) $(PYTEST_FLAGS) -m "not slow"

coverage: $(VENV)/.installed-dev ## the same tests with the lines they do not reach, which takes half as long again
	$(PYTEST) $(PYTEST_FLAGS) -m "not slow" --cov --cov-report=term:skip-covered

test-slow: $(VENV)/.installed-dev ## the tests that take longer than half a minute
	$(PYTEST) -m slow

test-spark: $(VENV)/.installed-dev ## only the tests that need PySpark and Java 17 (part of `make test` too)
	$(PYTEST) -m spark

lint: $(VENV)/.installed-dev ## ruff and mypy
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy

format: $(VENV)/.installed-dev ## mend what ruff can mend
	$(RUN) -m ruff check --fix
	$(RUN) -m ruff format

wheel: $(VENV)/.installed-dev ## the distributions, into dist
	$(RUN) -m build

release-check: $(VENV)/.installed-dev ## the wheel in empty environments, oldest and newest dependencies, with the quick start
	$(RUN) packaging/release_check.py

docs: $(VENV)/.installed-dev ## the pages, with every notebook run at full size, into site
	$(RUN) docs/render.py
	$(RUN) -m mkdocs build --strict
	@echo "To read them: $(RUN) -m http.server --directory site"

constraints: $(VENV)/.installed-dev ## write the versions that are installed now, after the tests passed with them
	$(RUN) -m pip list --format=freeze --exclude-editable --exclude pip --exclude setuptools \
		| sed 's/^\(torch==[0-9.]*\)+.*/\1/' > constraints.txt

clean: ## remove what tests and builds left; .venv and runs stay
	rm -rf dist build htmlcov .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find recsparse tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/.made
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt packaging/fbgemm-gpu/pyproject.toml | $(VENV)/.made
	$(PIP) $(STAND_IN) -e '.[$(EXTRAS)]'
	$(RUN) -m pip check
	@touch $(VENV)/.installed $@

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "recsparse needs Python 3.11 or newer, and '$(PYTHON)' is not; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
		echo "'$(PYTHON)' cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@touch $@
