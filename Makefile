# Two commands do everything, on a machine with nothing but Python 3.11-3.13 and make:
#   make reproduce    every experiment and figure, and the report
#   make test         the checks and the tests
# Both first create .venv from requirements.lock (again only when that file changes).
# Knobs: PYTHON=python3.12  CORES=4  JOBS=2 (test processes)  PYTEST_ARGS="-m 'not slow'"

CORES ?= all
JOBS ?= 2
PYTEST_ARGS ?=
RESULTS := results
REPORT := $(RESULTS)/report.html
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/installed
PIP := $(PY) -m pip --quiet --disable-pip-version-check
VERSION := import sys; print(sys.version_info[:2])
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

# The first Python that the lock was made for; PYTHON= overrides the search, "python3" stands for "none found".
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	if "$$p" -c '$(SUPPORTED)' 2>/dev/null; then echo "$$p"; exit; fi; done; echo python3)

# Rules and tests call plain `python`: they get the one in .venv.
RUN := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"

.DELETE_ON_ERROR:
.PHONY: help reproduce test setup lock clean

help:
	@echo "make reproduce   run every experiment and write $(REPORT)"
	@echo "make test        run the linters and the tests"
	@echo "make setup       only create or update $(VENV)"
	@echo "make lock        resolve requirements.lock anew from pyproject.toml"
	@echo "make clean       remove $(VENV), $(RESULTS) and caches (downloaded traces in data/ stay)"

reproduce: $(STAMP)
	@$(RUN) snakemake --cores $(CORES)
	@echo
	@echo "Report: $(CURDIR)/$(REPORT)"
	@$(PY) -m artifact timings $(RESULTS)

test: $(STAMP)
	@$(RUN) ruff check .
	@$(RUN) lint-imports --no-logo
	@$(RUN) pytest -n $(JOBS) --nbmake $(PYTEST_ARGS)

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo >&2 \
	"Python 3.11 or newer is needed, and '$(PYTHON)' is not. Install one, then: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c '$(SUPPORTED)' || echo >&2 \
	"Note: '$(PYTHON)' is newer than Python 3.13, the last one the lock was made for; it may need a compiler."
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo >&2 \
	"'$(PYTHON)' cannot create virtual environments: its venv or ensurepip module is missing." \
	"On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@start=$$(date +%s); set -e; \
	echo "Installing $$(grep -c == requirements.lock) locked packages into $(VENV) (1.2 GB; minutes, the first time) ..."; \
	[ "$$($(PY) -m pip --version >/dev/null 2>&1 && $(PY) -c '$(VERSION)')" = "$$($(PYTHON) -c '$(VERSION)')" ] \
	|| $(PYTHON) -m venv --clear $(VENV); \
	$(PIP) install --use-pep517 --require-hashes -r requirements.lock; \
	$(PIP) install --no-deps -e .; \
	touch $@; \
	echo "Installed in $$(( $$(date +%s) - start )) s: $$($(PY) --version), $$(du -sh $(VENV) | cut -f1)"

lock:
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PIP) install uv
	@$(VENV)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
	--extra harness --extra test --generate-hashes --no-emit-index-url --no-emit-find-links \
	--custom-compile-command "make lock" --output-file requirements.lock pyproject.toml
	@echo "requirements.lock: $$(grep -c == requirements.lock) packages"

clean:
	rm -rf $(VENV) $(RESULTS) logs build dist scheduler/*.egg-info
	rm -rf .snakemake .pytest_cache .hypothesis .ruff_cache .import_linter_cache
