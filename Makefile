# Every target does its own set-up in .venv; it needs Python 3.11 or newer, and make.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
DEMO := demo
PAIRS ?= 3000
MINIMUM := .venv-minimum
# What guards against other people's data and models, and what reads and writes files, trains and predicts.
MINIMUM_TESTS := tests/test_model_folder_security.py tests/test_config.py tests/test_model.py tests/test_hostile_inputs.py \
  tests/test_registry.py tests/encoders tests/heads tests/metrics/test_labels.py tests/evaluation/test_markdown.py \
  tests/data/files/test_locations.py tests/data/rows \
  $(addprefix tests/data/readers/test_,$(addsuffix .py,texts documents images dicom)) \
  $(addprefix tests/data/tables/test_,$(addsuffix .py,manifest groups splits table)) \
  $(addprefix tests/predict/test_,$(addsuffix .py,files predictor studies)) tests/training/test_training.py
# Refused in one line there, and right with newer ones: a TIFF in YCbCr (Pillow 13), empty lists of a fixed size (PyArrow 26).
# The store of the tests (moto) is not installed.
MINIMUM_BUT := not YCbCr and not every_type_of_parquet and not object_store
# A core each, up to eight: each process imports torch. Tests of one file stay together while none is idle.
SIDE_BY_SIDE ?= -n logical --maxprocesses 8 --dist worksteal
# Their folders train nothing; what is heavy in them all the same is marked so.
FAST_TESTS := $(addprefix tests/,data encoders evaluation fusion heads metrics test_config.py test_registry.py)
export HF_HUB_OFFLINE ?= 1

# What asserts of tests are rewritten to is kept, whatever the shell says: seconds of every start.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help install demo format lint rooms types test-fast test coverage test-slow test-gpu test-minimum check bench reference
.PHONY: tutorials docs build clean

help:  ## What can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-13s %s\n", $$1, $$2}'

install: .venv/installed  ## Set up .venv with mmfuse and the tools

.venv/installed: pyproject.toml setup.py constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: install  ## Train, evaluate and predict on synthetic pairs, in minutes on two cores
	$(BIN)/mmfuse data phantom $(DEMO)/phantom --studies $(PAIRS)
	$(BIN)/mmfuse train configs/demo.yaml
	$(BIN)/mmfuse evaluate $(DEMO)/run/model $(DEMO)/phantom/manifest.yaml --split test --out $(DEMO)/evaluation
	$(BIN)/mmfuse data phantom $(DEMO)/incoming --pairs --studies 40 --seed 7
	$(BIN)/mmfuse predict $(DEMO)/run/model $(DEMO)/incoming --out $(DEMO)/predictions.jsonl --overwrite
	@echo
	@echo "model:       $(DEMO)/run/model  (README.md is its card)"
	@echo "report:      $(DEMO)/evaluation/metrics.json, $(DEMO)/run/learning_curve.png"
	@echo "predictions: $(DEMO)/predictions.jsonl, $(DEMO)/predictions.errors.jsonl"

format: install  ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: install  ## Look for faults of style and of layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

rooms: install  ## Print lines per folder, circles of imports, long functions and those with many parameters
	$(BIN)/python tests/rooms.py

types: install  ## Check the types
	$(BIN)/pyright

test-fast: install  ## Run those that train nothing and start nothing: an answer in a minute on two cores
	$(BIN)/python -m pytest -q -m "not slow and not heavy" $(SIDE_BY_SIDE) $(FAST_TESTS)

test: install  ## Run the default tests
	$(BIN)/python -m pytest -m "not slow" $(SIDE_BY_SIDE)

coverage: install  ## Run the default tests, and tell which lines none of them runs in its own process
	$(BIN)/python -m pytest -m "not slow" $(SIDE_BY_SIDE) --cov=mmfuse --cov-report=term-missing:skip-covered

test-slow: install  ## Run the tests that take minutes
	$(BIN)/python -m pytest -m slow

test-gpu: install  ## Run the tests that need a CUDA device (MMFUSE_GPU_REHEARSAL=1: try them on the CPU)
	$(BIN)/python -m pytest -m gpu tests/gpu

test-minimum:  ## Run a part of the tests at the lowest versions that pyproject.toml allows, in .venv-minimum
	test -x $(MINIMUM)/bin/python || $(PYTHON) -m venv $(MINIMUM)
	$(MINIMUM)/bin/python -m pip install --quiet uv
	$(MINIMUM)/bin/python -m uv pip install --quiet --python $(MINIMUM)/bin/python --upgrade --resolution lowest-direct \
	  --editable ".[dicom,heic,s3,test]"
	$(MINIMUM)/bin/python -m pytest -m "not slow" -o filterwarnings=default $(MINIMUM_TESTS) -k '$(MINIMUM_BUT)'

check: lint types test  ## All that CI checks

bench: install  ## Measure speed against the baselines (see benchmarks/README.md)
	$(BIN)/python benchmarks/speed.py

reference: install  ## Write docs/reference/ anew, from the schemas and the command line
	$(BIN)/python docs/make_reference.py

tutorials: .venv/docs  ## Run the notebooks of docs/tutorials/ anew, and keep what they print
	$(BIN)/python docs/run_tutorials.py

docs: .venv/docs  ## Build the site of the documentation into build/site, warnings as errors
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -b html docs build/site
	@echo "the site: build/site/index.html"

.venv/docs: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	touch $@

build: install  ## Build the wheel and the source archive
	$(BIN)/python -m build

clean:  ## Remove what was made, except .venv
	rm -rf build dist *.egg-info $(DEMO) .pytest_cache .ruff_cache .hypothesis .import_linter_cache
