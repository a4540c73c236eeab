# Two commands do all the set-up on a fresh machine: make demo, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV_VERSION := 0.13.9
MINUTES ?= 10
SEEDS ?= 200

.PHONY: setup demo run test test-long lint bench docs lock clean

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Headwater needs Python 3.11 or later; set PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

demo: setup
	$(BIN)/headwater demo $(if $(KEEP),--keep)

run: setup
	$(BIN)/headwater run

test: setup
	$(BIN)/pytest -n 2 --dist loadfile

test-long: setup
	$(BIN)/pytest -m long --minutes=$(MINUTES) --seeds=$(SEEDS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python -m benchmarks $(NAME) $(if $(DATA),--data $(DATA))

docs: setup
	$(BIN)/mkdocs build --strict

# uv.lock would name registry hosts; a hashed requirements file names none.
lock: setup
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --extra dev -o requirements.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --constraint requirements.lock -o deploy/requirements.lock pyproject.toml

clean:
	test ! -x $(BIN)/headwater || $(BIN)/headwater services down
	rm -rf $(VENV) .headwater benchmarks/out site .mypy_cache .ruff_cache .pytest_cache .hypothesis
