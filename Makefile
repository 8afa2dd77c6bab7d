# Everything works on a machine with Python 3.11 or newer and nothing else done first.
# `make` alone lists the targets.

PYTHON ?= python3
PORT ?= 5000
# The browser of `make test-browser`.
CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
# Options of `allele-mlflow drill`, e.g. DRILL='kill-both --seed 7'.
DRILL ?=
# Processes of `make test`: one more than cores, for most tests wait for other processes.
JOBS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)

VENV := .venv
BIN := $(VENV)/bin
# One stamp for each set of packages and interpreter. All stand in one environment, and each is
# installed when a target first needs it and again when pyproject.toml changed.
stamp = $(VENV)/.$(subst /,_,$(PYTHON))-$(1)
FOR_DEMO := $(call stamp,demo)
FOR_CHECK := $(call stamp,check)
FOR_TEST := $(call stamp,test)
FOR_UI := $(call stamp,ui)
FOR_BROWSER := $(call stamp,browser)
FOR_FLOOR := $(VENV)-floor/.$(subst /,_,$(PYTHON))-floor
DEMO_STORE := demo/mlflow.db

export PYTHON

.DEFAULT_GOAL := help
.PHONY: help demo ui drill test test-browser need-chromium test-deep test-floor check format docs \
	bench bench-whole bench-sidecar bench-outage bench-recovery bench-store bench-drain bench-peers bench-suites \
	bench-detection bench-statistics bench-advice bench-dashboard clean
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  variables: PYTHON=$(PYTHON) PORT=$(PORT) (of make ui) DRILL=$(DRILL) (of make drill)" \
		"JOBS=$(JOBS) (of make test)"

demo: $(FOR_DEMO) ## log a real evolution into demo/, from nothing
	@mkdir -p demo
	@cd demo && ../$(BIN)/allele-mlflow run ../config/evolution.toml
	@echo "Next: make ui   (MLflow's own pages on this data)"

ui: $(FOR_UI) ## MLflow's own UI on the demo's data
	@[ -f $(DEMO_STORE) ] || $(MAKE) --no-print-directory demo
	@echo "http://127.0.0.1:$(PORT) (Ctrl-C ends it)"
	@cd demo && PYTHONWARNINGS=ignore MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
		../$(BIN)/mlflow ui --backend-store-uri sqlite:///mlflow.db \
		--host 127.0.0.1 --port $(PORT) --workers 1

test: $(FOR_TEST) ## every test that pip alone can serve
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

test-browser: need-chromium $(FOR_BROWSER) ## reports and the dashboard in a headless Chromium
	@CHROMIUM='$(CHROMIUM)' $(BIN)/python -m pytest tests/browser

need-chromium:
	@[ -x '$(CHROMIUM)' ] || { echo "no Chromium here: apt install chromium," \
		"or make test-browser CHROMIUM=/path/to/it" >&2; exit 2; }

test-deep: $(FOR_TEST) ## the same with long searches of the property tests
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "" --hypothesis-profile=deep \
		--timeout=1800 -o faulthandler_timeout=1700

drill: $(FOR_TEST) ## the full fault drills: half an hour of kills, outages and full disks
	@mkdir -p drill
	@$(BIN)/allele-mlflow drill --full --folder drill $(DRILL)

test-floor: $(FOR_FLOOR) ## the integration tests on the lowest MLflow that pyproject.toml allows
	@$(VENV)-floor/bin/python -m pytest tests/integration -m "not slow and not server"

check: $(FOR_CHECK) ## format, lint, types, import contracts, generated docs
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python docs/generate.py --check

format: $(FOR_CHECK) ## rewrite the code as ruff wants it
	@$(BIN)/ruff check --fix-only
	@$(BIN)/ruff format

docs: $(FOR_DEMO) ## rewrite the generated docs
	@$(BIN)/python docs/generate.py

bench: $(FOR_DEMO) ## what a call costs, and what logging costs a benchmark
	@$(BIN)/python benchmarks/call_cost.py
	@$(BIN)/python benchmarks/overhead.py

bench-whole: $(FOR_DEMO) ## what a benchmark pays for logging and delivery together
	@$(BIN)/python benchmarks/overhead.py --whole --rate-per-s 4800
	@$(BIN)/python benchmarks/overhead.py --whole --whole-pairs 65

bench-sidecar: $(FOR_DEMO) ## the wait at close, the idle sidecar, its memory under a backlog
	@$(BIN)/python benchmarks/sidecar_cost.py

bench-outage: $(FOR_DEMO) ## what a benchmark notices of a store that is away
	@$(BIN)/python benchmarks/outage.py

bench-recovery: $(FOR_DEMO) ## how soon a sync of a million records sends, and its memory
	@$(BIN)/python benchmarks/recovery.py

bench-store: $(FOR_TEST) ## rows a second: the database's floor, the bulk store, MLflow's log_batch
	@$(BIN)/python benchmarks/store.py

bench-drain: $(FOR_DEMO) ## from log.metric to a row: lag at steady rates, and large backlogs
	@$(BIN)/python benchmarks/drain.py

bench-suites: $(FOR_DEMO) ## what a suite costs beside its cells, and how soon it resumes
	@$(BIN)/python benchmarks/suites.py

bench-detection: $(FOR_DEMO) ## false alarms and power of change detection, beside others'
	@$(BIN)/python benchmarks/detection.py
	@$(BIN)/python benchmarks/trend_scan.py

bench-statistics: $(FOR_DEMO) ## how far the statistics of comparison can be trusted
	@$(BIN)/python benchmarks/evidence.py

bench-advice: $(FOR_DEMO) ## how often recommendations and predictions are wrong, where the truth is known
	@$(BIN)/python benchmarks/advice.py

bench-dashboard: $(FOR_DEMO) ## how soon pages come on 10,000 runs, memory of the server, lag of a live page
	@$(BIN)/python benchmarks/dashboard.py

bench-peers: $(FOR_DEMO) ## other trackers beside this one, each in an environment of its own
	@$(BIN)/python benchmarks/peers.py

clean: ## remove what make made: environments, caches, demo/
	@rm -rf $(VENV) $(VENV)-floor $(VENV)-peers demo drill build dist .mypy_cache .ruff_cache .pytest_cache \
		.import_linter_cache .hypothesis
	@find src tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

$(FOR_DEMO): pyproject.toml .ci/venv
	@.ci/venv $(VENV) --editable '.[demo]'
	@touch $@

$(FOR_CHECK): $(FOR_DEMO)
	@.ci/venv $(VENV) --group check --editable '.[demo,gpu]'
	@touch $@

$(FOR_TEST): $(FOR_CHECK)
	@.ci/venv $(VENV) --group test --editable '.[demo,gpu]'
	@touch $@

$(FOR_BROWSER): $(FOR_DEMO)
	@.ci/venv $(VENV) --group browser --editable '.[demo]'
	@touch $@

$(FOR_UI): $(FOR_DEMO)
	@.ci/venv $(VENV) --editable '.[demo,ui]'
	@touch $@

# The lower bound itself, out of the one place that states it.
$(FOR_FLOOR): pyproject.toml .ci/venv
	@floor=$$(sed -n 's/^ *"\(mlflow-skinny\)>=\([0-9.]*\)".*/\1==\2/p' pyproject.toml); \
		rm -rf $(VENV)-floor; \
		.ci/venv $(VENV)-floor --group test-light --editable . "$${floor:?no bound in pyproject.toml}"
	@touch $@
