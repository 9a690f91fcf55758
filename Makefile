# Every target makes its own environment in .venv when there is none, or when what it should hold has changed.
PYTHON ?= python3
# Test files that run side by side.
TEST_PROCESSES ?= 2
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

# The strict type checker reads the package by its import name; an editable install hides it, so a folder holds a link
# called `plait` to the root. Rooms and root modules are named, so that it never walks into .venv or the link itself.
TYPES_ROOT    := build/types
TYPED_ROOMS   := engine ops loaders runs reports views
TYPED_MODULES := $(patsubst %.py,plait.%,$(filter-out __init__.py,$(wildcard *.py)))
TYPED_SCRIPTS := $(patsubst benchmarks/%.py,%,$(wildcard benchmarks/*.py))

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-architectures lint types check docs pictures bench wheel clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) ## merge three small models and show the result
	$(BIN)/plait demo

# Processes that tests start may keep what they compile; the order of the files is that of tests/conftest.py.
test: $(READY) ## the tests, a few minutes
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -m "not slow" -n $(TEST_PROCESSES) --dist loadfile \
		--no-loadscope-reorder

test-all: $(READY) ## the tests, the slow ones too
	$(BIN)/python -m pytest

test-architectures: $(READY) ## every architecture of transformers, merged and loaded, ten minutes
	$(BIN)/python -m pytest tests/test_catalogue.py

lint: $(READY) ## style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## strict types over the package and the benchmarks
	mkdir -p $(TYPES_ROOT)
	ln -sfn ../.. $(TYPES_ROOT)/plait
	cd $(TYPES_ROOT) && MYPYPATH=plait/benchmarks ../../$(BIN)/mypy \
		--config-file ../../pyproject.toml --cache-dir ../../.mypy_cache \
		$(TYPED_ROOMS:%=-p plait.%) $(TYPED_MODULES:%=-m %) $(TYPED_SCRIPTS:%=-m %)

check: lint types test ## what has to pass before a commit

docs: $(READY) ## docs/methods.md anew, from what the methods declare
	mkdir -p build
	$(BIN)/plait methods --markdown > build/methods.md
	mv build/methods.md docs/methods.md

pictures: $(READY) ## docs/pictures anew: terminals as SVG, pages as Chromium shows them
	$(BIN)/python docs/pictures.py
	$(BIN)/python docs/screenshots.py

bench: $(READY) ## times and memory of a small merge over budgets and workers
	$(BIN)/python benchmarks/memory_sweep.py --shape 100m

wheel: $(READY) ## dist/plait-*.whl
	rm -rf build/lib build/bdist.* dist
	$(BIN)/python -m pip wheel --no-deps --wheel-dir dist .

clean: ## remove what the other targets made, the environment too
	rm -rf $(VENV) build dist demo-output *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test,dev]'
	touch $@
