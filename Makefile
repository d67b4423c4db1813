# `make` lists what there is. Nothing but Python >= 3.11 has to be there: `.venv` is made by the first target that needs it.
# PYTHON=/path/to/python3.12 chooses the interpreter that `.venv` is made with.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:
.SUFFIXES:

PYTHONS := $(if $(PYTHON),$(PYTHON),python3.11 python3.12 python3.13 python3.14 python3 python)
PY := .venv/bin/python
UV := .venv/bin/uv
COMPILE := $(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet
RUNTIME := pyproject.toml
DEVELOPMENT := pyproject.toml --extra postgres --group dev --group bench
IMAGE := insights-platform-api

.PHONY: help install install-dev run dev demo test test-cov lint format types audit check api-docs bench bench-grok bench-queries \
	evaluate load-test fake-xai soak docker-build docker-run db-init backup restore vacuum \
	lock requirements-check clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-19s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: .venv/.runtime ## Make .venv with what the service needs

install-dev: .venv/.development ## Make .venv with the tools for tests and types too

run: .venv/.runtime ## Start the service (PORT=8000; settings from the environment or .env)
	@exec $(PY) main.py

dev: .venv/.development ## Start the service and reload it on change (PORT=8000)
	@exec $(PY) -m uvicorn --factory main:create_app --reload --host "$${HOST:-127.0.0.1}" --port "$${PORT:-8000}" --no-access-log --timeout-graceful-shutdown 1

demo: .venv/.runtime ## See it work: load a sample, print insights (CSV=path for your own, DEMO_EXIT=1 to end)
	@exec $(PY) demo.py

test: .venv/.development ## Run the tests (ARGS="-m unit" for some)
	@$(PY) -m pytest $(ARGS)

soak: .venv/.development ## Play every fault in full and write .soak/report.md (hours; ARGS="-k kill" for some)
	@SOAK=1 $(PY) -m pytest tests/faults $(ARGS)

test-cov: .venv/.development ## Run the tests and say which lines they did not reach
	@$(PY) -m pytest --cov=. --cov-report=term-missing:skip-covered --cov-report=xml $(ARGS)

lint: .venv/.development ## Look for mistakes and unformatted code, change nothing
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

format: .venv/.development ## Format the code and mend what can be mended safely
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

types: .venv/.development ## Check the types with mypy and pyright
	$(PY) -m mypy .
	$(PY) -m pyright

audit: .venv/.development ## Look the locked packages up among known vulnerabilities (says NOT RUN where it cannot)
	@.ci/audit

check: lint requirements-check types audit test ## Everything that has to hold: lint, locks, types, audit, tests

api-docs: .venv/.development ## Write docs/API.md and openapi.json anew, from sessions that it runs (docs/sessions)
	@$(PY) -m docs.make_api

bench: .venv/.development ## Compare the service with a plain design (4 minutes; ARGS=--quick for a look)
	@$(PY) benchmarks/ingest_bench.py $(ARGS)

bench-grok: .venv/.development ## Compare packs with one call a conversation on a fake xAI (3 minutes; ARGS=--quick for a look)
	@$(PY) benchmarks/grok_bench.py $(ARGS)

bench-queries: .venv/.development ## Compare reads on a million insights with a plain design (5 minutes; ARGS=--quick for a look)
	@$(PY) benchmarks/query_bench.py $(ARGS)

evaluate: .venv/.runtime ## Score the offline analyzer on labelled files (FILES="a.csv b.csv")
	@$(PY) training/evaluate.py $(FILES)

load-test: .venv/.development ## Load a running service (ARGS="--num-conversations 2000 --url http://localhost:8000")
	@$(PY) benchmarks/load_test.py $(ARGS)

fake-xai: .venv/.development ## Play xAI, to try real mode without a key (PORT=9009, ARGS="--latency 2 --faults 0.1")
	@exec $(PY) -m tests.fake_xai --port "$${PORT:-9009}" $(ARGS)

docker-build: ## Build the image
	docker build -t $(IMAGE) .

docker-run: ## Run the image within its limits, data in the volume insights-data (ALLOW_ANONYMOUS=true, PORT=8000, ARGS="--env-file FILE")
	docker run --rm --init --name $(IMAGE) --publish "127.0.0.1:$${PORT:-8000}:8000" --volume insights-data:/data \
		--cpus 2 --memory 1g --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
		--env GROK_KEY --env API_KEYS --env API_KEYS_FILE --env ALLOW_ANONYMOUS $(ARGS) $(IMAGE)

# The service does the same at every start; this is for those who want the tables first.
db-init: .venv/.runtime ## Make or migrate the database that DATABASE_URL names
	@$(PY) -c "import asyncio; from database import Database; from settings import Settings; \
	database = Database.connect(Settings().database_url); runner = asyncio.Runner(); runner.run(database.open()); \
	runner.run(database.close()); runner.close(); print('The tables are up to date.')"

backup: .venv/.runtime ## Copy the database while the service runs (FILE=backup.db)
	@$(if $(FILE),$(PY) -m backups make "$(FILE)",echo "Name the copy: make backup FILE=backup.db" >&2; exit 2)

vacuum: .venv/.runtime ## Write the database anew, so that nothing erased is left in it; stop the service first
	@$(PY) -m backups vacuum

restore: .venv/.runtime ## Put a backup in the place of the database; stop the service first (FILE=backup.db)
	@$(if $(FILE),$(PY) -m backups restore "$(FILE)",echo "Name the backup: make restore FILE=backup.db" >&2; exit 2)

lock: .venv/.uv ## Lock what pyproject.toml asks for, with hashes (ARGS=--upgrade for the newest versions)
	@echo "uv==0.13.8" | $(COMPILE) --output-file requirements-uv.txt - >/dev/null
	$(COMPILE) $(ARGS) --output-file requirements.txt $(RUNTIME) >/dev/null
	$(COMPILE) $(ARGS) --output-file requirements-dev.txt $(DEVELOPMENT) >/dev/null

# Starts from the committed pins: a newer release is no drift, nor a wheel added to an old one; a changed pyproject.toml is.
requirements-check: .venv/.uv ## Fail when the locks do not fit pyproject.toml
	@rm -rf .venv/lock && mkdir .venv/lock && cp requirements*.txt .venv/lock/
	@$(COMPILE) --output-file .venv/lock/requirements.txt $(RUNTIME) >/dev/null
	@$(COMPILE) --output-file .venv/lock/requirements-dev.txt $(DEVELOPMENT) >/dev/null
	@for lock in requirements.txt requirements-dev.txt; do \
		for side in . .venv/lock; do sed '/--hash=/d' $$side/$$lock > .venv/lock/pins-$$(basename $$side); done; \
		diff -u .venv/lock/pins-. .venv/lock/pins-lock || { echo "$$lock does not fit pyproject.toml: run 'make lock'." >&2; exit 1; }; \
	done
	@awk '!/^[a-z]/ { next } NR == FNR { pinned[$$1] = 1; next } \
		!($$1 in pinned) { print $$1 " is pinned otherwise in requirements-dev.txt: run make lock."; wrong = 1 } \
		END { exit wrong }' requirements-dev.txt requirements.txt >&2
	@echo "The locks fit pyproject.toml."

clean: ## Remove .venv, caches and what demo, soak and bench-queries made; databases and .env stay
	rm -rf .venv .demo .bench .soak .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage coverage.xml
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps in .venv: each is made again when the file that it was made from is newer.

.venv/.development: requirements-dev.txt .venv/.uv
	@echo "Installing the service and the tools for its tests into .venv"
	@$(UV) pip sync --quiet --python $(PY) --require-hashes requirements-dev.txt
	@touch .venv/.runtime $@

# `install` and not `sync`: what the tests need stays, so that demo and test can follow each other.
.venv/.runtime: requirements.txt .venv/.uv
	@echo "Installing the service into .venv"
	@$(UV) pip install --quiet --python $(PY) --require-hashes -r requirements.txt
	@touch $@

.venv/.uv: requirements-uv.txt .venv/.made
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.txt
	@touch $@

# A .venv that works is taken as it is.
.venv/.made:
	@if $(PY) -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then touch $@; exit 0; fi; \
	for python in $(PYTHONS); do \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
		"$$python" -c 'import ensurepip, venv' 2>/dev/null || { lacking=$$python; continue; }; \
		echo "Making .venv with $$("$$python" --version)"; \
		"$$python" -m venv --clear .venv && touch $@; exit $$?; \
	done; \
	if [ -n "$$lacking" ]; then \
		echo "$$lacking cannot make virtual environments: install its venv module (Debian, Ubuntu: apt install python3-venv)." >&2; \
	else \
		echo "No Python 3.11 or newer was found (tried $(PYTHONS)): install one, or name it: make PYTHON=/path/to/python3.12" >&2; \
	fi; exit 1
