# What people working on Peerloom run; `make` alone lists it. Needs Python 3.11 to 3.13, nothing else.
#   PYTHON=python3.12   which Python makes the virtual environment
#   VENV=.venv          where that is
#   UV=                 install with pip even if uv is on PATH
#   ARGS="-k workflow"  passed on by the `test` targets, `bench` (to each benchmark), `sim` and `chaos`
#   JOBS=2              how many processes the `test` targets run at once; 3 with the slow tests, which mostly wait
#   KILLS=100           how many processes `chaos` kills
#   ENGINES=.engines    where `engines` installs them

PYTHON ?= python3
VENV ?= .venv
UV ?= $(shell command -v uv)
ARGS ?=
JOBS ?= 2
KILLS ?= 10
ENGINES ?= .engines
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime-installed
DEV := $(VENV)/.dev-installed
CLIENTS := $(VENV)/.clients-installed
DOCS := $(VENV)/.docs-installed
PYTEST = $(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal --durations 15

# Refuses a Python that cannot work, in words; it is read by that very Python, so it keeps to old syntax.
define PREFLIGHT
import sys
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit("Peerloom needs Python 3.11, 3.12 or 3.13; %s is %s. Name one: make install PYTHON=python3.12"
             % (sys.executable, sys.version.split()[0]))
if sys.argv[1:] == ["pip"]:
    try:
        import ensurepip, venv
    except ImportError:
        sys.exit("%s cannot make virtual environments (no module ensurepip). Install uv; or on Debian or "
                 "Ubuntu: apt install python%d.%d-venv" % ((sys.executable,) + sys.version_info[:2]))
endef
export PREFLIGHT

ifneq ($(strip $(UV)),)
# uv does not read pip's configuration: the index named there is passed on.
INDEX = "$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$($(PYTHON) -m pip config get global.index-url 2>/dev/null)}}"
VENV_ARGS = --quiet --allow-existing --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')"
MAKE_VENV = $(UV) venv $(VENV_ARGS) $(VENV) || $(UV_FAILED)
INSTALL = UV_DEFAULT_INDEX=$(INDEX) $(UV) pip install --quiet --python $(BIN)/python --constraint constraints.txt
UV_FAILED = { echo "$$UV_HELP" >&2; exit 1; }
define UV_HELP
uv failed, see above. If pip is configured with more indexes, a proxy or a certificate, tell uv too
(UV_INDEX, ALL_PROXY, SSL_CERT_FILE), or install with pip: make clean $(MAKECMDGOALS) UV=
endef
export UV_HELP
else
MAKE_VENV = $(PYTHON) -m venv $(VENV)
INSTALL = $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
UV_FAILED = false
endif

# Without bytecode each of the many processes of a test run compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo test test-all test-rest clients check lint types rules docs format bench sim chaos engines clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 10

install: $(DEV)  ## make .venv with everything needed to develop

demo: $(RUNTIME)  ## a dozen Coral dialogues with a small real model, on Ray
	$(BIN)/peerloom run coral llm=llamacpp limit=12 --run-dir runs/coral-demo --fresh
	@echo && PAGER=cat $(BIN)/peerloom show runs/coral-demo --limit 1

test: $(DEV)  ## the quick tests: up to 3 minutes on two cores
	$(PYTEST) -m "not slow" --ignore tests/arch $(ARGS)

test-all test-rest: JOBS = 3

test-all: $(CLIENTS) $(DOCS)  ## every test
	$(PYTEST) $(ARGS)

test-rest: $(CLIENTS) $(DOCS)  ## the tests that `test` leaves out
	$(PYTEST) -m slow --ignore tests/arch $(ARGS)

clients: $(CLIENTS)  ## the clients of other projects that only tests need

check: lint types rules  ## everything that is checked without running Peerloom

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV)
	$(BIN)/pyright --pythonpath $(BIN)/python

rules: $(DEV)
	$(BIN)/python -m pytest tests/arch

docs: $(DOCS)  ## the documentation as a site, in `site`: every page as HTML and as Markdown
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: $(DEV)  ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(RUNTIME)  ## hops and calls per second on this machine
	$(BIN)/python -m benchmarks hops $(ARGS)
	$(BIN)/python -m benchmarks calls $(ARGS)

sim: $(RUNTIME)  ## 100,000 histories of the protocol in virtual time
	$(BIN)/python tests/sim/explore.py --histories 100000 $(ARGS)

chaos: $(RUNTIME)  ## kill the processes of a run at random, count its rows and calls
	$(BIN)/python tests/chaos/chaos.py --kills $(KILLS) $(ARGS)

engines: $(DEV)  ## real vLLM on this machine's cores, its processes killed in turn: gigabytes, a quarter of an hour
	$(BIN)/python tests/engines/prepare.py $(ENGINES)
	PEERLOOM_ENGINES=$(ENGINES) $(BIN)/python -m pytest tests/engines --numprocesses 0 --capture no --timeout 1800 $(ARGS)

clean:  ## remove the virtual environment and all caches
	rm -rf $(VENV) dist site .pytest_cache .ruff_cache
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "no $(PYTHON) on PATH: make install PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c "$$PREFLIGHT" $(if $(UV),uv,pip)
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@rm -f $(BIN)/python*
	@$(MAKE_VENV)

# In two steps, so that the demo need not wait for the developer's tools.
$(RUNTIME): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing Peerloom and what it runs on into $(VENV)"
	@$(INSTALL) --editable . || $(UV_FAILED)
	@touch $@

$(DEV): $(RUNTIME)
	@echo "installing the developer's tools into $(VENV)"
	@$(INSTALL) --editable ".[datasets,documents,hub,pandas,prices]" --group dev || $(UV_FAILED)
	@touch $@

$(DOCS): $(RUNTIME)
	@echo "installing the tools for the documentation into $(VENV)"
	@$(INSTALL) --group docs || $(UV_FAILED)
	@touch $@

# Their requirements contradict Peerloom's and each other's, so they have environments of their own.
$(CLIENTS): tests/contract/clients/requirements.txt tests/contract/clients/requirements-litellm.txt | $(DEV)
	@echo "installing the clients that only tests need into $(VENV)/clients and $(VENV)/litellm"
	$(call environment,$(VENV)/clients,tests/contract/clients/requirements.txt)
	$(call environment,$(VENV)/litellm,tests/contract/clients/requirements-litellm.txt)
	@touch $@

define environment
	@if command -v uv >/dev/null; \
	then uv venv --quiet --clear --python $(BIN)/python $(1) && uv pip install --quiet --python $(1)/bin/python -r $(2); \
	else $(BIN)/python -m venv --clear $(1) && $(1)/bin/python -m pip --disable-pip-version-check install --quiet -r $(2); \
	fi
endef
