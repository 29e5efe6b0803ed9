# Two commands do everything, on a machine with nothing but Python 3.11-3.13 and make:
#   make reproduce    every experiment and figure, and the report
#   make test         the checks and the tests (make quick: the cheap ones; make test-all: what runs every night, too)
# And a third one where there is a GPU:
#   make gpu          its step times, and the sweep over vLLM servers on it
# All first create .venv from requirements.lock (again only when that file changes), vLLM for this machine included.
# Knobs: ENGINE=cpu|gpu|none (the vLLM in .venv; else what the machine can run, see artifact/setup/install.sh)
#        PYTHON=python3.12  CORES=4  JOBS=3 (test processes)  PYTEST_ARGS="-m 'not slow'"

ENGINE := auto
CORES ?= all
# Test processes: one more than cores, because tests of servers wait; at most 8, because each takes a gigabyte.
JOBS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN); echo $$((n < 7 ? n + 1 : 8)))
PYTEST_ARGS ?=
QUICK := tests/niyama tests/laws tests/traces -m "not slow and not engine"
RESULTS := results
REPORT := $(RESULTS)/report.html
# Of each kind of GPU in a folder of its own: times of two do not mix.
GPU_NAME = $(shell nvidia-smi -L 2>/dev/null | sed -n 's/ .UUID.*//; s/^GPU 0: //p' | tr 'A-Z /' 'a-z--')
GPU_RESULTS = $(RESULTS)/gpu/$(GPU_NAME)
STEP_TIMES = $(GPU_RESULTS)/step_times.parquet
GPU_CARD = $(GPU_RESULTS)/card-monotone.json
VENV := .venv
PY := $(VENV)/bin/python
SETUP := artifact/setup
STAMP := $(VENV)/installed
INSTALLED := $(shell cat $(STAMP) 2>/dev/null)
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

# The first Python that the lock was made for; PYTHON= overrides the search, "python3" stands for "none found".
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	if "$$p" -c '$(SUPPORTED)' 2>/dev/null; then echo "$$p"; exit; fi; done; echo python3)

# Rules and tests call plain `python`: they get the one in .venv.
RUN := PATH="$(abspath $(VENV)/bin):$$PATH"

.DELETE_ON_ERROR:
.PHONY: help reproduce lint quick test test-all test-busy vllm-suite gpu setup lock clean FORCE

help:
	@echo "make reproduce   run every experiment and write $(REPORT)"
	@echo "make quick       run the linters and the cheap tests, in less than 90 s"
	@echo "make test        run the linters and the tests"
	@echo "make test-all    the same with what runs every night: 20 times the examples, at random, and the slowest tests"
	@echo "make test-busy   the same beside eight busy loops: no test may depend on how fast the machine is"
	@echo "make vllm-suite  run vLLM's own scheduler tests against Niyama's classes (UPDATE=1 rewrites the list)"
	@echo "make gpu         measure this machine's GPU, its step times and servers on it, into $(RESULTS)/gpu"
	@echo "make setup       only create or update $(VENV)"
	@echo "make lock        resolve requirements.lock anew from pyproject.toml"
	@echo "make clean       remove .venv, $(RESULTS) and caches (downloaded traces in data/ stay)"

# A part that fails costs its own figure only: Snakefile makes the report all the same, and says what failed.
reproduce: $(STAMP)
	@$(RUN) NIYAMA_AGAIN="make reproduce" snakemake --cores $(CORES)
	@echo
	@echo "Report: $(CURDIR)/$(REPORT)"
	@$(PY) -m artifact timings $(RESULTS)

lint: $(STAMP)
	@$(RUN) ruff check .
	@$(RUN) ruff format --check --quiet .
	@$(RUN) lint-imports --no-logo
	@$(RUN) mypy

quick: lint
	@$(RUN) pytest -n $(JOBS) $(QUICK) --examples 0.1 $(PYTEST_ARGS)

test: lint
	@$(RUN) pytest -n $(JOBS) --nbmake $(PYTEST_ARGS)

test-all: lint
	@$(RUN) pytest -n $(JOBS) --nbmake --nightly --examples 20 $(PYTEST_ARGS)

# In a random order as well: SHUFFLE=1, another number for another order.
test-busy: $(STAMP)
	@$(PY) -m tests.helpers.busy_loops 8 $(MAKE) --no-print-directory test PYTEST_ARGS='$(PYTEST_ARGS) $(if $(SHUFFLE),--shuffle $(SHUFFLE))'

vllm-suite: $(STAMP)
	@$(PY) -m artifact vllm-suite $(if $(UPDATE),--update)

# What has been measured stays, also when it is interrupted: remove $(GPU_RESULTS) to measure again.
gpu:
	$(if $(shell nvidia-smi -L 2>/dev/null | grep GPU),,$(error no GPU: nvidia-smi lists none. Without one, \
	`make reproduce` runs vLLM on an emulated A100))
	@$(MAKE) --no-print-directory setup ENGINE=gpu
	@echo "Measuring into $(GPU_RESULTS): step times (8 minutes on an A100), then servers (20). Interrupted, \
	the same command goes on."
	@$(PY) -m artifact profile --backend gpu --grid full --resume --out $(STEP_TIMES)
	@test $(GPU_CARD) -nt $(STEP_TIMES) || $(PY) -m artifact fit $(STEP_TIMES) --kinds monotone --name card
	@$(RUN) snakemake --cores $(CORES) --keep-going servers \
	--config servers_config=workflows/config/gpu.yaml servers_latency=$(GPU_CARD) results=$(GPU_RESULTS)
	@echo
	@echo "Step times: $(CURDIR)/$(STEP_TIMES)"
	@echo "Servers: $(CURDIR)/$(GPU_RESULTS)/servers/full/figures"

setup: $(STAMP)

ifneq ($(filter-out auto $(INSTALLED),$(ENGINE)),)
$(STAMP): FORCE # another engine than the one that is there
endif

$(STAMP): requirements.lock pyproject.toml $(SETUP)/install.sh $(SETUP)/vllm/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo >&2 \
	"Python 3.11 or newer is needed, and '$(PYTHON)' is not. Install one, then: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c '$(SUPPORTED)' || echo >&2 \
	"Note: '$(PYTHON)' is newer than Python 3.13, the last one the lock was made for; it may need a compiler."
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo >&2 \
	"'$(PYTHON)' cannot create virtual environments: its venv or ensurepip module is missing." \
	"On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@sh $(SETUP)/install.sh $(PYTHON) $(VENV) $(if $(filter auto,$(ENGINE)),$(or $(INSTALLED),auto),$(ENGINE))

lock:
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check uv
	@$(VENV)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
	--extra harness --extra test --group engine --generate-hashes --no-emit-index-url --no-emit-find-links \
	--custom-compile-command "make lock" --output-file requirements.lock pyproject.toml
	@echo "requirements.lock: $$(grep -c == requirements.lock) packages"

clean:
	rm -rf .venv $(RESULTS) logs build dist scheduler/*.egg-info $(SETUP)/vllm/build $(SETUP)/vllm/*.egg-info
	rm -rf .snakemake .pytest_cache .hypothesis .ruff_cache .import_linter_cache .mypy_cache
