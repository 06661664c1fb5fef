# make quickstart   trains the cooperation and its baseline on MovieLens-100K, compares them, recommends
# make test         lint, types and tests
# make lint         the first two of these
# make docs         the site, in site/
# Each sets up .venv from requirements.txt first, once.

PYTHON ?= python3
BIN := .venv/bin
QUICK := pipelines/movielens100k.yaml

.PHONY: quickstart test lint docs setup clean

quickstart: setup
	$(BIN)/tfcorr train $(QUICK) --resume
	$(BIN)/tfcorr train $(QUICK) --name movielens100k-two-stage --set training.method=two-stage --resume
	$(BIN)/tfcorr compare saved_models/movielens100k saved_models/movielens100k-two-stage
	$(BIN)/tfcorr recommend saved_models/movielens100k --history 50,181,172 --titles

test: lint
	$(BIN)/pytest --numprocesses 2 --dist loadgroup

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

setup: .venv/installed

.venv/installed: requirements.txt setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

clean:
	rm -rf .venv
