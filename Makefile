# Two commands do everything, on a machine with nothing but Python 3.11-3.13 and make:
#   make reproduce    every experiment and figure, and the report
#   make test         the checks and the tests (make quick: the cheap ones; make test-all: what runs every night, too)
# And two that measure an engine which nothing models, its step times first, then vLLM servers on it:
#   make gpu          on a GPU
#   make cpu          on the CPU, with a small model: the path of make gpu on every machine
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
CPU_RESULTS = $(RESULTS)/cpu
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
.PHONY: help reproduce lint quick test test-all test-busy vllm-suite gpu cpu setup lock clean FORCE

help:
	@echo "make reproduce   run every experiment and write $(REPORT)"
	@echo "make quick       run the linters and the cheap tests, in less than 90 s"
	@echo "make test        run the linters and the tests"
	@echo "make test-all    the same with what runs every night: 20 times the examples, at random, and the slowest tests"
	@echo "make test-busy   the same beside eight busy loops: no test may depend on how fast the machine is"
	@echo "make vllm-suite  run vLLM's own scheduler tests against Niyama's classes (UPDATE=1 rewrites the list)"
	@echo "make gpu         measure this machine's GPU, its step times and servers on it, into $(RESULTS)/gpu"
	@echo "make cpu         the same of vLLM's real CPU engine with a small model, into $(CPU_RESULTS)"
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

# Step times, a latency model of them, then servers that predict with it; of: backend, grid, folder of results.
define measure
	@$(PY) -m artifact profile --backend $(1) --grid $(2) --resume --out $(3)/step_times.parquet
	@test $(3)/card-monotone.json -nt $(3)/step_times.parquet || \
	$(PY) -m artifact fit $(3)/step_times.parquet --kinds monotone --name card
	@$(RUN) snakemake --cores $(CORES) --keep-going servers --config servers_config=workflows/config/$(1).yaml \
	servers_backend=$(1) servers_latency=$(3)/card-monotone.json results=$(3)
	@echo
	@echo "Step times: $(CURDIR)/$(3)/step_times.parquet"
	@echo "Servers: $(CURDIR)/$(3)/servers/full/figures"
endef

# What has been measured stays, also when it is interrupted: remove $(GPU_RESULTS) to measure again.
gpu:
	$(if $(shell nvidia-smi -L 2>/dev/null | grep GPU),,$(error no GPU: nvidia-smi lists none. Without one, \
	`make reproduce` runs vLLM on an emulated A100))
	@$(MAKE) --no-print-directory setup ENGINE=gpu
	@echo "Measuring into $(GPU_RESULTS): step times (8 minutes on an A100), then servers (25). Interrupted, \
	the same command goes on."
	$(call measure,gpu,full,$(GPU_RESULTS))

# Nothing else may run meanwhile: client and engine share the cores.
cpu: $(STAMP)
	@grep -qx cpu $(STAMP) || { echo >&2 "vLLM's CPU build is not in $(VENV) (there: $$(cat $(STAMP)))." \
	"To put it there: make cpu ENGINE=cpu"; exit 1; }
	@echo "Measuring into $(CPU_RESULTS): step times (two minutes on two idle cores), then servers (37). Interrupted, \
	the same command goes on."
	$(call measure,cpu,cpu,$(CPU_RESULTS))

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
