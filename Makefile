PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo install test lint bench docs lock

# Real servers on this machine, measured, then the Dagster UI and the console until Ctrl-C. ONCE=1 stops after the table.
demo: $(INSTALLED)
	@scripts/system-packages --optional mariadb
	@scripts/mysql-server --optional
	@exec $(BIN)/whalefall-capacity demo $(if $(ONCE),--once)

install: $(INSTALLED)

# WHALEFALL_TEST_WITHOUT_MYSQL=1 goes without MySQL where none can be had: its tests are then skipped.
test: $(INSTALLED) lint
	@scripts/system-packages mariadb chromium pgbouncer
	@$(if $(WHALEFALL_TEST_WITHOUT_MYSQL),,scripts/mysql-server)
	$(BIN)/pytest -n 2 --dist loadfile

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Prints each figure beside its ceiling from the same run; benchmarks/RESULTS.md keeps the full-size ones.
bench: $(INSTALLED)
	@scripts/system-packages mariadb
	$(BIN)/python -m benchmarks

docs: $(INSTALLED)
	$(BIN)/python scripts/settings_page.py > docs/settings.md
	$(BIN)/python scripts/er_diagram.py > docs/schema.md
	$(BIN)/python scripts/task_run_schema.py > docs/task-run-summary.schema.json

# Pins every dependency for every supported Python; needs uv.
lock:
	uv pip compile --universal --no-strip-extras --python-version 3.10 --generate-hashes --extra dev \
		--no-header --no-annotate --no-emit-index-url pyproject.toml -o requirements.lock

$(INSTALLED): requirements.lock pyproject.toml setup.cfg
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or newer is needed"; exit 1; }
	@PYTHON=$(PYTHON) scripts/system-packages venv
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@
