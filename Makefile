# `make quickstart` runs the main job, `make test` passes the tests; both install what they need into a virtual
# environment of their own.
PYTHON ?= python3
VENV ?= .venv

INSTALLED = $(VENV)/installed

.PHONY: quickstart test lint clean

quickstart: $(INSTALLED)
	$(VENV)/bin/vltok fit --config recipes/quickstart.yaml --overwrite

test: lint
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses auto --dist worksteal

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) runs build *.egg-info
