# Start with `make demo` or `make test`. Both build `.venv` first.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO_DIR := work_dirs/demo
NUMPY1 := $(VENV)/numpy1
# Data of `make bench`: the demo's images, or for example
# make bench BENCH_DATA='--data-root data/coco'
BENCH_DATA ?= --data-root data/demo --ann-file annotations/train.json --img-prefix train
# Environment of the benchmarks: mmdet, mmseg, and mmcv with its operators.
# The wheel of mmcv is built once per machine and version of mmcv, PyTorch and
# Python. mmcv asks for C++17, but the headers of PyTorch 2.14 need C++20.
DOWNSTREAM := .venv-downstream
DOWNSTREAM_READY := $(DOWNSTREAM)/.ready
DOWNSTREAM_PINS := -c requirements/constraints.txt -c requirements/downstream-constraints.txt
# One environment per host. The wheel is installed there, and a project outside
# of this repository uses it.
HOSTS := .venv-hosts
HOSTS_INPUTS := $(addprefix requirements/,runtime.txt hosts.txt hosts-constraints.txt constraints.txt opencv.txt)
HOSTS_PINS := -c requirements/hosts-constraints.txt
WHEELS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/univip_mm/wheels

.PHONY: help env demo test bench quality docs test-downstream test-hosts lint clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/'

env: $(READY)  ## build .venv with all dependencies, versions pinned

# opencv-contrib must be installed last: see requirements/opencv.txt.
$(READY): pyproject.toml $(filter-out requirements/downstream%,$(wildcard requirements/*.txt))
	@echo 'Building $(VENV): 5.6 GB once unpacked, some 3 minutes, once.'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install -q -r requirements/dev.txt -c requirements/constraints.txt
	$(BIN)/python -m pip install -q --force-reinstall --no-deps -r requirements/opencv.txt
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	touch $@

demo: env  ## make data and proposals, pre-train, evaluate and draw, in minutes on 2 cores
	$(BIN)/python tools/demo/run_demo.py --work-dir $(DEMO_DIR)

test: env  ## run the whole test suite on two cores
	@for name in chromium chromium-browser google-chrome; do command -v $$name; done | grep -q . || \
		echo 'No browser: the test of the report in a browser is skipped (apt-get install chromium).'
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
		tests

# CUDA_VISIBLE_DEVICES: mmcv's operators are built for the CPU only.
$(DOWNSTREAM_READY): pyproject.toml $(addprefix requirements/,runtime.txt downstream.txt downstream-constraints.txt constraints.txt opencv.txt)
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
	    printf '#!/bin/sh\nexec g++ "$$@" -std=c++20\n' > "$$part/c++20"; \
	    chmod +x "$$part/c++20"; \
	    CXX="$$part/c++20" CUDA_VISIBLE_DEVICES= FORCE_CUDA=0 MMCV_WITH_OPS=1 MAX_JOBS=$${MAX_JOBS:-$$(nproc)} \
	    $(DOWNSTREAM)/bin/python -m pip wheel -q --no-cache-dir --no-deps --no-build-isolation \
	        -w "$$part" mmcv==$$wanted; \
	    mv "$$part"/*.whl "$$folder"; rm -r "$$part"; \
	fi; \
	$(DOWNSTREAM)/bin/python -m pip install -q --no-deps "$$folder"/mmcv-$$wanted-*.whl
	$(DOWNSTREAM)/bin/python -m pip install -q --no-deps --no-build-isolation -e .
	touch $@

test-downstream: $(DOWNSTREAM_READY)  ## fine-tune detectors, a segmentor and probes from a UniVIP checkpoint
	CUDA_VISIBLE_DEVICES= $(DOWNSTREAM)/bin/python -m pytest tests/downstream tests/test_tools/test_extract_backbone.py

$(HOSTS)/mmpretrain/.ready: $(HOSTS_INPUTS)
	@echo 'Building $(@D): 5.6 GB once unpacked, some 3 minutes, once.'
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install -q -r requirements/runtime.txt -r requirements/hosts.txt -c requirements/constraints.txt $(HOSTS_PINS)
	$(@D)/bin/python -m pip install -q --force-reinstall --no-deps -r requirements/opencv.txt
	touch $@

# MMSelfSup needs an older mmcv and NumPy 1. Its folder `mmpretrain` holds the
# other host, for the tests with both.
$(HOSTS)/mmselfsup/.ready: requirements/mmselfsup.txt $(HOSTS_INPUTS)
	@echo 'Building $(@D): 5.6 GB once unpacked, some 3 minutes, once.'
	$(PYTHON) -m venv --clear $(@D)
	grep -v -E '^(mmpretrain|mmcv-lite)' requirements/runtime.txt > $(@D)/runtime.txt
	grep -v -E '^mmcv-lite' requirements/constraints.txt > $(@D)/constraints.txt
	echo 'mmcv-lite==2.0.1' >> $(@D)/constraints.txt
	$(@D)/bin/python -m pip install -q -r $(@D)/runtime.txt -r requirements/mmselfsup.txt -r requirements/hosts.txt -c $(@D)/constraints.txt $(HOSTS_PINS)
	$(@D)/bin/python -m pip install -q --force-reinstall --no-deps -r requirements/opencv.txt numpy==1.26.4
	$(@D)/bin/python -m pip install -q --no-deps --target $(@D)/mmpretrain mmpretrain -c requirements/constraints.txt
	touch $@

test-hosts: $(HOSTS)/mmpretrain/.ready $(HOSTS)/mmselfsup/.ready  ## use the wheel in a project of MMPretrain and in one of MMSelfSup
	rm -rf build $(HOSTS)/wheel $(HOSTS)/shared
	mkdir -p $(HOSTS)/shared
	$(HOSTS)/mmpretrain/bin/python -m pip wheel -q --no-deps --no-build-isolation -w $(HOSTS)/wheel .
	set -e; for host in mmpretrain mmselfsup; do \
	    python='$(CURDIR)/$(HOSTS)'/$$host/bin/python; \
	    $$python -m pip install -q --no-deps --force-reinstall $(HOSTS)/wheel/*.whl; \
	    echo "== $$host"; \
	    (cd tests/hosts && UNIVIP_SHARED='$(CURDIR)/$(HOSTS)/shared' $$python -m pytest .); \
	    $$python tests/hosts/import_time.py; \
	done

bench: env $(NUMPY1) data/demo/annotations  ## measure the speed of every stage next to a reference
	$(BIN)/python tools/benchmarks/speed.py --numpy1 $(NUMPY1) $(BENCH_DATA)

# The host's BYOL pipeline, a reference for our loader, needs NumPy 1.
$(NUMPY1): $(READY)
	$(BIN)/python -m pip install -q --no-deps --upgrade --target $@ numpy==1.26.4
	touch $@

data/demo/annotations: | $(READY)
	$(BIN)/python tools/demo/make_data.py

quality: env  ## compare UniVIP with BYOL, hours on 2 cores; if killed, the same command resumes
	$(BIN)/python -m experiments.byol_comparison run --jobs 2

docs: env  ## build the documentation site in docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

lint: env  ## run ruff, and mypy on the modules of the public names
	$(BIN)/ruff check .
	$(BIN)/python -m mypy

clean:  ## remove the environments and all generated files
	rm -rf $(VENV) $(DOWNSTREAM) $(HOSTS) build $(DEMO_DIR) data/demo .pytest_cache .ruff_cache .hypothesis docs/_build data/quality data/quality.lock work_dirs/quality data/quality_large data/quality_large.lock work_dirs/quality_large
