# The two commands: `make demo` and `make test`. Both build `.venv` first.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO_DIR := work_dirs/demo
NUMPY1 := $(VENV)/numpy1
# What `make bench` measures: the demo's images, or, for example,
# make bench BENCH_DATA='--data-root data/coco'
BENCH_DATA ?= --data-root data/demo --ann-file annotations/train.json --img-prefix train
# The benchmarks' environment: with mmdet, mmseg, and mmcv's operators, whose
# wheel is built once on a machine for each version of it, PyTorch and Python.
DOWNSTREAM := .venv-downstream
DOWNSTREAM_READY := $(DOWNSTREAM)/.ready
DOWNSTREAM_PINS := -c requirements/constraints.txt -c requirements/downstream-constraints.txt
WHEELS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/univip_mm/wheels

.PHONY: help env demo test bench test-downstream lint clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/'

env: $(READY)  ## build .venv with every dependency, versions pinned

# opencv-contrib goes in last and by force: see requirements/opencv.txt.
$(READY): setup.py $(filter-out requirements/downstream%,$(wildcard requirements/*.txt))
	@echo 'Building $(VENV): 5.6 GB once unpacked, some 3 minutes, once.'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install -q -r requirements/dev.txt -c requirements/constraints.txt
	$(BIN)/python -m pip install -q --force-reinstall --no-deps -r requirements/opencv.txt
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	touch $@

demo: env  ## data, proposals, pre-training, evaluation and pictures, in minutes on 2 cores
	$(BIN)/python tools/demo/run_demo.py --work-dir $(DEMO_DIR)

test: env  ## the whole test suite, on two cores
	$(BIN)/python -m pytest -n 2 --dist loadfile tests

# CUDA_VISIBLE_DEVICES: mmcv's operators are built for the CPU, GPU or not.
$(DOWNSTREAM_READY): setup.py $(addprefix requirements/,runtime.txt downstream.txt downstream-constraints.txt constraints.txt opencv.txt)
	@echo 'Building $(DOWNSTREAM): 6 GB once unpacked; some 15 minutes on 2 cores, most of them for mmcv, once.'
	$(PYTHON) -m venv --clear $(DOWNSTREAM)
	sed '/^mmcv-lite/d' requirements/runtime.txt > $(DOWNSTREAM)/runtime.txt
	$(DOWNSTREAM)/bin/python -m pip install -q -r $(DOWNSTREAM)/runtime.txt -r requirements/downstream.txt $(DOWNSTREAM_PINS)
	$(DOWNSTREAM)/bin/python -m pip install -q --force-reinstall --no-deps -r requirements/opencv.txt
	set -e; \
	key=$$($(DOWNSTREAM)/bin/python -c 'import platform, torch; print(torch.__version__, platform.python_version(), platform.machine(), sep="-")'); \
	folder="$(WHEELS)/torch-$$key"; \
	wanted=$$(sed -n 's/^mmcv==//p' requirements/downstream-constraints.txt); \
	if ! ls "$$folder"/mmcv-$$wanted-*.whl >/dev/null 2>&1; then \
	    mkdir -p "$$folder"; \
	    part=$$(mktemp -d "$$folder/part.XXXXXX"); \
	    CUDA_VISIBLE_DEVICES= FORCE_CUDA=0 MMCV_WITH_OPS=1 MAX_JOBS=$${MAX_JOBS:-$$(nproc)} \
	    $(DOWNSTREAM)/bin/python -m pip wheel -q --no-cache-dir --no-deps --no-build-isolation \
	        -w "$$part" mmcv==$$wanted; \
	    mv "$$part"/*.whl "$$folder"; rmdir "$$part"; \
	fi; \
	$(DOWNSTREAM)/bin/python -m pip install -q --no-deps "$$folder"/mmcv-$$wanted-*.whl
	$(DOWNSTREAM)/bin/python -m pip install -q --no-deps --no-build-isolation -e .
	touch $@

test-downstream: $(DOWNSTREAM_READY)  ## fine-tune detectors, a segmentor and probes from a UniVIP checkpoint, for real
	CUDA_VISIBLE_DEVICES= $(DOWNSTREAM)/bin/python -m pytest tests/downstream tests/test_tools/test_extract_backbone.py

bench: env $(NUMPY1) data/demo/annotations  ## every stage of the training beside a peer, as a table and as JSON
	$(BIN)/python tools/benchmarks/speed.py --numpy1 $(NUMPY1) $(BENCH_DATA)

# The host's BYOL pipeline, a peer of the loader's, needs NumPy 1.
$(NUMPY1): $(READY)
	$(BIN)/python -m pip install -q --no-deps --upgrade --target $@ numpy==1.26.4
	touch $@

data/demo/annotations: | $(READY)
	$(BIN)/python tools/demo/make_data.py

lint: env  ## ruff
	$(BIN)/ruff check .

clean:  ## remove .venv and what demo and tests leave behind
	rm -rf $(VENV) $(DOWNSTREAM) $(DEMO_DIR) data/demo .pytest_cache .ruff_cache .hypothesis
