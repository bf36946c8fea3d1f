PYTHON ?= python3
BIN := .venv/bin
AUDIT := .venv-audit
INSTALLED := .venv/.installed
DAGSTER_HOME := .venv/dagster

.PHONY: demo install test clocks lint bench docs lock audit

# Real servers on this machine, measured, then the Dagster UI and the console until Ctrl-C. ONCE=1 stops after the table.
demo: $(INSTALLED)
	@scripts/system-packages --optional mariadb
	@scripts/mysql-server --optional
	@exec $(BIN)/whalefall-capacity demo $(if $(ONCE),--once)

install: $(INSTALLED)

# A home for Dagster's own commands, which read .env; some do nothing without one. A .env that is there stays as it is.
$(DAGSTER_HOME)/dagster.yaml:
	@mkdir -p $(@D)
	@ln -s ../../dagster.yaml $@

.env:
	@umask 077 && echo "DAGSTER_HOME='$(CURDIR)/$(DAGSTER_HOME)'" > $@

# By itself xdist hands out the files with the fewest tests last, and those are the slowest.
# Three processes, because many of the slowest tests wait for others that work.
PYTEST := $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

# WHALEFALL_TEST_WITHOUT_MYSQL=1 goes without MySQL where none can be had: its tests are then skipped.
test: $(INSTALLED) lint
	@scripts/system-packages mariadb chromium pgbouncer redis
	@$(if $(WHALEFALL_TEST_WITHOUT_MYSQL),,scripts/mysql-server)
	@scripts/firebird || echo "no Firebird server: its tests are skipped"
	$(PYTEST)
	@$(MAKE) --no-print-directory clocks

# The tests that know what day it is, at the moments at which days go wrong: the last hour of a year, a leap day whose
# date in UTC is another, and the days of 23 and 25 hours.
CLOCKS := 2026-12-31T23:30@Asia/Shanghai 2028-02-29T00:30@Asia/Shanghai \
	2027-03-14T00:30@America/New_York 2027-10-31T23:30@Europe/Berlin
KNOW_THE_DAY := assets/test_stats.py assets/test_aggregations.py automation commands/test_aggregate.py \
	commands/test_partitions.py console/actions/test_current.py jobs/test_aggregate_current.py \
	jobs/test_partition_maintenance.py test_partitions.py test_periods.py

# Two clocks at a time, in one process each: the servers of the tests start once a process.
clocks: $(INSTALLED)
	@echo $(CLOCKS) | xargs -n 1 -P 2 sh -c '\
		printed=$$($(BIN)/pytest -q -m "not slow" --clock=$$1 \
			$(addprefix whalefall_capacity_tests/,$(KNOW_THE_DAY)) 2>&1) && status=0 || status=1; \
		printf "on the clock of %s\n%s\n" "$$1" "$$printed"; exit $$status' clock

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# Prints each figure beside its ceiling from the same run; benchmarks/RESULTS.md keeps the full-size ones.
bench: $(INSTALLED)
	@scripts/system-packages mariadb
	$(BIN)/python -m benchmarks

docs: $(INSTALLED)
	$(BIN)/python scripts/settings_page.py > docs/settings.md
	$(BIN)/python scripts/cli_page.py > docs/cli.md
	$(BIN)/python scripts/er_diagram.py > docs/schema.md
	$(BIN)/python scripts/task_run_schema.py > docs/task-run-summary.schema.json

# Pins every dependency for every supported Python; needs uv.
lock:
	uv pip compile --universal --no-strip-extras --python-version 3.11 --generate-hashes \
		$(addprefix --extra ,dev celery k8s docker) \
		--no-header --no-annotate --no-emit-index-url pyproject.toml -o requirements.lock

# Looks every pinned dependency up in PyPI's index of advisories; fails where that cannot be reached.
audit: $(AUDIT)/.installed
	@$(AUDIT)/bin/python scripts/audit.py $(AUDIT)/bin/pip-audit requirements.lock

# An environment of its own: what it needs is none of the program's.
$(AUDIT)/.installed:
	$(PYTHON) -m venv $(AUDIT)
	@$(AUDIT)/bin/pip install --quiet --disable-pip-version-check 'pip-audit>=2.9,<3' || \
		{ echo "pip-audit could not be installed, so nothing is known about the dependencies"; exit 1; }
	@touch $@

$(INSTALLED): requirements.lock pyproject.toml setup.cfg | .env $(DAGSTER_HOME)/dagster.yaml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || { \
		echo "Python 3.11 to 3.14 is needed, for example: make PYTHON=python3.14 install" >&2; exit 1; }
	@PYTHON=$(PYTHON) scripts/system-packages venv
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@
