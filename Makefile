# Every target sets itself up: it needs make, git, pip and a Python of at least 3.11, found as python3 or given as PYTHON=...

PYTHON ?= python3
# Arguments for pytest: make test PYTEST_ARGS="-k chain"
PYTEST_ARGS ?=
WORKERS ?= 2
# Arguments for the benchmarks: make bench BENCH_ARGS= runs the long form, BENCH_ARGS="--short --only refit" one script.
BENCH_ARGS ?= --short
# What .venv-bench is made with: BENCH_EXTRAS=bench,bench-peers adds the libraries beside FlowJAX.
BENCH_EXTRAS ?= bench

VENV := .venv
NEWEST := .venv-newest
BENCH := .venv-bench
SETUP := pyproject.toml constraints/oldest.txt
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

# A suite of JAX programs mostly compiles: keep what was compiled.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.jax_cache
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0
# At each load of a kept program XLA reports two made-up machine features as missing.
export TF_CPP_MIN_LOG_LEVEL ?= 3
# One run of pytest for each precision; the first that fails ends it.
run_tests = for precision in $(or $(PRECISIONS),float32 float64); do \
	case $$precision in float32) x64=0 ;; float64) x64=1 ;; *) echo "no such precision: $$precision" >&2; exit 1 ;; esac; \
	JAX_ENABLE_X64=$$x64 $(1)/bin/python -m pytest -n $(WORKERS) --dist loadgroup $(PYTEST_ARGS) || exit 1; done

# The interpreter of the newest-JAX environment; if none is given, the newest above 3.11 that can make an environment.
NEWEST_PYTHON ?=
CANDIDATES = $(or $(NEWEST_PYTHON),python3.14 python3.13 python3.12 $$(ls -dr "$$HOME"/.pyenv/versions/3.1[2-9]*/bin/python3 2>/dev/null))
FIND_NEWEST = for python in $(CANDIDATES); do \
	"$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1 && echo "$$python" && break; done

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-all test-newest run-newest lint format docs serve-docs bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## make the environment and install flowlib with its development tools

quickstart: $(VENV)/.ready ## fit, sample, draw and save flows on real data (under three minutes)
	PYTHONUNBUFFERED=1 $(VENV)/bin/python examples/quickstart.py

test: PRECISIONS ?= float32
test: $(VENV)/.ready ## the tests on the oldest JAX admitted, one case a class; with PRECISIONS=float64, in that, with another
	$(call run_tests,$(VENV))

test-all: $(VENV)/.ready ## every case at every size, in float32 and in float64
	FLOWLIB_TEST_SIZES=all; export FLOWLIB_TEST_SIZES; $(call run_tests,$(VENV))

test-newest: ## all tests on the newest JAX, if a Python above 3.11 is found
	@python=$$($(FIND_NEWEST)); if [ -z "$$python" ]; then \
		echo "test-newest: skipped, for no Python above 3.11 was found; name one with NEWEST_PYTHON=..."; \
	else $(MAKE) --no-print-directory run-newest NEWEST_PYTHON="$$python"; fi

run-newest: $(NEWEST)/.ready
	$(NEWEST)/bin/python -c 'import jax, sys; print("Python", sys.version.split()[0], "with JAX", jax.__version__)'
	$(call run_tests,$(NEWEST))

lint: $(VENV)/.ready ## ruff and pyright
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright

format: $(VENV)/.ready ## put the code in the one format
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

docs: $(VENV)/.docs-ready ## build the documentation into site/, failing on any warning
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet

serve-docs: $(VENV)/.docs-ready ## the documentation on a local port, built again at each change
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs serve

bench: $(BENCH)/.ready ## the benchmarks beside FlowJAX, in their short form; writes docs/benchmarks.md
	$(BENCH)/bin/python benchmarks/run_all.py $(BENCH_ARGS)

clean: ## remove environments, caches and outputs
	rm -rf $(VENV) $(NEWEST) $(BENCH) .jax_cache .pytest_cache .ruff_cache site out build dist

$(VENV)/.ready: $(SETUP)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "flowlib needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 | head -n 1). Name another with PYTHON=..." >&2; exit 1; }
	@echo "Setting up $(VENV) ..."
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python $(PIP_INSTALL) --constraint constraints/oldest.txt --editable '.[dev]'
	@touch $@

$(VENV)/.docs-ready: $(VENV)/.ready
	$(VENV)/bin/python $(PIP_INSTALL) --constraint constraints/oldest.txt --editable '.[docs]'
	@touch $@

$(BENCH)/.ready: $(SETUP)
	@echo "Setting up $(BENCH) ..."
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python $(PIP_INSTALL) --constraint constraints/oldest.txt --editable '.[$(BENCH_EXTRAS)]'
	@touch $@

$(NEWEST)/.ready: pyproject.toml
	@echo "Setting up $(NEWEST) with $(NEWEST_PYTHON) ..."
	$(NEWEST_PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/python $(PIP_INSTALL) --upgrade --upgrade-strategy eager --editable '.[dev]'
	@touch $@
