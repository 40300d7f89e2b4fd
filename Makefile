# Two commands: `make run` and `make test`. `make help` lists the rest.
PRESET ?=
DETECTOR ?= clic
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
SITE_ENV := build/site_env
CHOICE := detector=$(DETECTOR) $(if $(PRESET),preset=$(PRESET))

# tests run side by side: one thread each; groups of them in the order that tests/conftest.py gives
test unit: export OMP_NUM_THREADS := 1
GROUPED := --dist loadgroup --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help env run test unit lint format docs site clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  make run PRESET=smoke|demo|reference|large DETECTOR=clic|cld|cms_like    (default: demo, clic)"

$(VENV)/installed: requirements.in requirements.txt requirements-dev.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

env: $(VENV)/installed  ## Make the environment in .venv, for running and development

run: env  ## Run the whole chain and write the report
	$(BIN)/snakemake --profile profiles/local --config $(CHOICE)

# one process more than cores: tests on Slurm mostly wait for it
test: env  ## Run every test
	$(BIN)/pytest --numprocesses $(shell expr $$(nproc) + 1) $(GROUPED)

unit: env  ## Run the quick tests only
	$(BIN)/pytest --numprocesses auto $(GROUPED) -m "not integration and not workflow and not slurm"

lint: env  ## Check style, types, layering and the workflow
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/snakemake --lint

format: env  ## Format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/snakefmt Snakefile workflow/rules

docs: env  ## Rewrite config/README.md, JSON schemas and tables of columns from the models
	$(BIN)/python -m particleforge.config.document

$(SITE_ENV)/installed: requirements-docs.txt
	$(PYTHON) -m venv $(SITE_ENV)
	$(SITE_ENV)/bin/pip install --quiet --disable-pip-version-check --requirement requirements-docs.txt
	@touch $@

site: $(SITE_ENV)/installed  ## Build the docs as a site in build/site; a dead link fails
	NO_MKDOCS_2_WARNING=1 $(SITE_ENV)/bin/mkdocs build

clean:  ## Delete the results, after asking
	@read -p "Delete results/ and .snakemake/? [y/N] " answer && [ "$$answer" = y ] && rm -rf results .snakemake || echo "kept"
