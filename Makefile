# Everything from a fresh checkout: `make demo` shows the main job on one patient, `make test` checks the whole house.
# Needed beforehand: Python 3.11 or newer with venv, and access to Python packages. Everything else is set up here, in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

LOWEST := .venv-lowest

.PHONY: demo test lint check lowest wheel clean
.DEFAULT_GOAL := test

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: $(READY)
	$(BIN)/oncontour demo

test: lint check

lint: $(READY)
	$(BIN)/ruff check src tests bench examples docs
	$(BIN)/ruff format --check src tests bench examples docs
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

check: $(READY)
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $${TEST_JOBS:-2} --dist loadfile

# The lowest versions that pyproject.toml allows, in a venv of their own, and tests of what leans on them most.
$(LOWEST)/.ready: pyproject.toml constraints-lowest.txt
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -r constraints-lowest.txt
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

lowest: $(LOWEST)/.ready
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -q tests/test_cli.py tests/learn/test_engine.py tests/report/test_report.py \
		tests/io/test_seg.py tests/io/test_textheader.py tests/io/test_series_compressed.py tests/metrics/test_stats.py tests/nets/test_unet.py
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -q tests/learn/test_train.py -k two_runs_of_one_seed

# dist/oncontour-*.whl, which the Dockerfile installs.
wheel: $(READY)
	rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps -w dist .

clean:
	rm -rf $(VENV) $(LOWEST) build dist demo-out .mypy_cache .ruff_cache .pytest_cache .hypothesis src/*.egg-info
