# Two commands: `make serve` runs the service, `make test` runs every test. Both build `.venv` first, each what it needs.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# Torch is pinned here and not in pyproject.toml: one version that every test passed with.
TORCH ?= torch==2.13.0

.PHONY: serve test lint bench reliability clean

serve: $(VENV)/.serving
	$(BIN)/winnow serve

test: $(VENV)/.testing
	@$(BIN)/python -m pytest

lint: $(VENV)/.testing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.serving
	$(BIN)/winnow bench

# Half an hour or more; each program has a bound of its own (docs/reliability.md).
reliability: $(VENV)/.testing
	$(BIN)/python -m tests.reliability

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Winnow needs Python 3.11 or later; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

# The stamps are written after an installation that succeeded, so a broken one is done again.
$(VENV)/.serving: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[cpu]'
	@touch $@

$(VENV)/.testing: $(VENV)/.serving
	$(BIN)/python -m pip install --quiet --editable '.[cpu,training,test]' '$(TORCH)'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
