# `make quickstart` runs the main job, from photographs to pictures that a prior draws, and ends with the path of a
# report to look at; `make test` passes the tests. Both install what they need into a virtual environment of their own.
PYTHON ?= python3
VENV ?= .venv

INSTALLED = $(VENV)/installed
QUICKSTART_TOKENIZE = $(VENV)/bin/vltok tokenize --tokenizer runs/quickstart/bundle --precision bfloat16 --overwrite

.PHONY: quickstart test docs test-docs tutorial test-versions faults soak bench gpu check plugins lint clean

quickstart: $(INSTALLED)
	$(VENV)/bin/vltok fit --config recipes/quickstart.yaml --overwrite
	$(QUICKSTART_TOKENIZE) --split train --data.train_crops 6400 --out runs/quickstart_codes/train
	$(QUICKSTART_TOKENIZE) --split val --data.val_crops 300 --out runs/quickstart_codes/val
	$(VENV)/bin/vltok fit --config recipes/quickstart_prior.yaml --overwrite
	$(VENV)/bin/vltok sample --prior runs/quickstart_prior/bundle --count 64 --overwrite --out runs/quickstart_samples
	$(VENV)/bin/vltok rate runs/quickstart/bundle --training-pictures 1000 --out runs/quickstart_rate
	$(VENV)/bin/vltok evaluate --tokenizer runs/quickstart/bundle --features efficientnet-lite0 --out runs/quickstart_evaluation

test: lint
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses auto --dist worksteal

# the documentation, for a browser: build/docs/index.html
docs: $(INSTALLED)
	$(VENV)/bin/sphinx-build --fresh-env --fail-on-warning --keep-going --quiet docs build/docs

# whether its pages build without a warning, link to what there is, and look right in a browser
test-docs: $(INSTALLED)
	$(VENV)/bin/python -m pytest -m docs tests/test_docs.py

# the tutorial anew, with what its cells show, in ten minutes
tutorial: $(INSTALLED)
	$(VENV)/bin/python -m pip install --quiet nbclient ipykernel
	mkdir -p build/tutorial && cp docs/tutorial.ipynb build/tutorial
	PATH=$(abspath $(VENV))/bin:$$PATH $(VENV)/bin/jupyter execute --inplace build/tutorial/tutorial.ipynb
	$(VENV)/bin/python docs/slim.py build/tutorial/tutorial.ipynb docs/tutorial.ipynb
	$(VENV)/bin/python -m pip uninstall --quiet --yes my-gate

# the quick tests on every Python and with the oldest and the newest libraries that pyproject.toml allows; takes uv
test-versions:
	.ci/versions

# a table of what every fault comes to: a clear line, and nothing lost
faults: $(INSTALLED)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -m faults -p tests.faults.table --numprocesses auto --dist worksteal --tb short

# how memory, open files and threads grow while jobs run for long
soak: $(INSTALLED)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m tests.soak

# speed against public packages, in one table
bench: $(INSTALLED)
	$(VENV)/bin/python -m tests.benchmarks --device cpu

# the tests that need a GPU, then the table, which is written to tests/benchmarks/results; one line where there is none
gpu: $(INSTALLED)
	.ci/gpu $(VENV)/bin/python

# our code for what invites misuse, and what it stands on for known holes; the second asks osv.dev, since PyPI's own
# service passes what it does not know
check: $(INSTALLED)
	$(VENV)/bin/python -m pip install --quiet --editable '.[check]'
	$(VENV)/bin/bandit --quiet --configfile pyproject.toml --recursive vltok plugins/*/src
	$(VENV)/bin/pip-audit --local --skip-editable --progress-spinner off --vulnerability-service osv

plugins:
	PYTHON=$(PYTHON) .ci/plugins

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/mypy

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) runs build *.egg-info
