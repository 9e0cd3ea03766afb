# The two commands: `make demo` and `make test`. Both build `.venv` first.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO_DIR := work_dirs/demo

.PHONY: help env demo test lint clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/'

env: $(READY)  ## build .venv with every dependency, versions pinned

# opencv-contrib goes in last and by force: see requirements/opencv.txt.
$(READY): setup.py $(wildcard requirements/*.txt)
	@echo 'Building $(VENV): 5.6 GB once unpacked, some 3 minutes, once.'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install -q -r requirements/dev.txt -c requirements/constraints.txt
	$(BIN)/python -m pip install -q --force-reinstall --no-deps -r requirements/opencv.txt
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	touch $@

demo: env  ## data, proposals, pre-training, evaluation and pictures, in minutes on 2 cores
	$(BIN)/python tools/demo/run_demo.py --work-dir $(DEMO_DIR)

test: env  ## the whole test suite
	$(BIN)/python -m pytest tests

lint: env  ## ruff
	$(BIN)/ruff check .

clean:  ## remove .venv and what demo and tests leave behind
	rm -rf $(VENV) $(DEMO_DIR) data/demo .pytest_cache .ruff_cache .hypothesis
