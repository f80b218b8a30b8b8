# Everything a contributor or a reviewer runs. Every target does its own set-up: on a bare machine with
# Python 3.11 or newer, `make check` is enough. `make help` lists the targets.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install -qq --constraint constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
SECONDS ?= 60
.PHONY: faults fuzz lock audit sbom licences help install judges peers demo test test-search test-slow lint types imports check format bench docs-pages docs clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' \
		| while IFS='|' read -r name text; do printf '  make %-11s %s\n' "$$name" "$$text"; done

install: .venv/.installed ## Create .venv and install emloom with its development tools, at pinned versions

judges: .venv-peers/.installed ## Create .venv-peers with cloud-volume and ome-zarr, which judge what emloom writes

peers: judges .venv-peers-gunpowder/.installed .venv-peers-webknossos/.installed ## As judges, and what benchmarks measure against

demo: install ## A damaged phantom from raw to connectome, scored against the truth; report in demo/
	$(BIN)/emloom demo -o demo

test: install ## Run the test suite (without the slow tests) on two processes
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-search: install ## Run the test suite with examples of properties that were never drawn before
	EMLOOM_HYPOTHESIS=search $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: install ## Run the slow tests only
	$(BIN)/python -m pytest -m slow

lint: install ## Check formatting and style (ruff)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install ## Check types (mypy, strict)
	$(BIN)/mypy

imports: install ## Check that imports point down (import-linter)
	$(BIN)/lint-imports

check: lint types imports test ## All gates: lint, types, imports, test

format: install ## Rewrite the code in the house's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install judges .venv-peers-gunpowder/.installed .venv-peers-webknossos/.installed ## Run every benchmark in turn; writes docs/benchmarks.md
	@$(BIN)/python tools/bench.py

faults: install ## Write docs/faults.md anew, from the tests that do the faults
	$(BIN)/python -m tests.faulttable

fuzz: install ## Feed every parser with made-up bytes, SECONDS=60 each; findings land in fuzz-findings/
	ulimit -v 16000000; nice -n 19 $(BIN)/python -W error -m tests.fuzzing all $(SECONDS)

lock: .venv-tools/.installed ## Write requirements.lock anew: what emloom needs to run, with the sums of its files
	.venv-tools/bin/uv pip compile --quiet --generate-hashes --no-header --no-annotate --universal \
		--python-version 3.11 --extra view --extra openvino --extra forest --extra networkx \
		--constraint constraints.txt --output-file requirements.lock pyproject.toml

audit: .venv-tools/.installed ## Ask the advisory database for known weaknesses of what is locked
	@.venv-tools/bin/pip-audit --strict --disable-pip --no-deps --progress-spinner off -r requirements.lock || { \
		echo "make audit: weaknesses stand above, or the advisory database (pypi.org) could not be asked about" \
			"every package: then nothing is known, and this is no pass"; exit 1; }

sbom: .venv-tools/.installed ## Write build/sbom.json: what is locked, as CycloneDX
	@mkdir -p build
	.venv-tools/bin/cyclonedx-py requirements --pyproject pyproject.toml --of JSON --output-reproducible \
		-o build/sbom.json requirements.lock

licences: install ## Write docs/licences.md anew, from the packages' own metadata
	$(BIN)/python -m tests.licences

docs-pages: install ## Write the pages that follow from the code anew: docs/cli.md, docs/api.md
	$(BIN)/python -m emloom.cli.manual docs

docs: .venv/.installed-docs ## Build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean: ## Remove what was built; keeps .venv* (delete them by hand to start over)
	rm -rf build dist site demo htmlcov .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "emloom needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) -V 2>&1):" \
			"choose another with make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv

# Order-only: the interpreter's own date says nothing about what is installed.
.venv/.installed: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing emloom and its tools into .venv (minutes the first time)"
	@$(PIP) --editable '.[dev]'
	@touch $@

.venv/.installed-docs: .venv/.installed
	@$(PIP) --editable '.[docs]'
	@touch $@

# cloud-volume and ome-zarr have pins of their own, so they judge from an environment of their own.
.venv-peers/.installed: peers.txt | .venv/bin/python
	@echo "Installing the libraries that judge emloom's files into .venv-peers"
	@.venv/bin/python -m venv .venv-peers
	@.venv-peers/bin/python -m pip --disable-pip-version-check --no-input install -qq --requirement peers.txt
	@touch $@

.venv-tools/.installed: tools.txt | .venv/bin/python
	@.venv/bin/python -m venv .venv-tools
	@.venv-tools/bin/python -m pip --disable-pip-version-check --no-input install -qq --requirement tools.txt
	@touch $@

# gunpowder and lsds want zarr below 3: a third environment.
.venv-peers-gunpowder/.installed: peers-gunpowder.txt | .venv/bin/python
	@echo "Installing the libraries that emloom's benchmarks measure against into .venv-peers-gunpowder"
	@.venv/bin/python -m venv .venv-peers-gunpowder
	@.venv-peers-gunpowder/bin/python -m pip --disable-pip-version-check --no-input install -qq \
		--requirement peers-gunpowder.txt
	@touch $@

# webknossos is AGPL, half a gigabyte, and pins many old versions: a fourth environment, which emloom never imports.
.venv-peers-webknossos/.installed: peers-webknossos.txt | .venv/bin/python
	@echo "Installing the library that emloom's benchmark of tracings measures against into .venv-peers-webknossos"
	@.venv/bin/python -m venv .venv-peers-webknossos
	@.venv-peers-webknossos/bin/python -m pip --disable-pip-version-check --no-input install -qq \
		--requirement peers-webknossos.txt
	@touch $@
