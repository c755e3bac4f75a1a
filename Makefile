# One command each, no activation: make run, make test. `make help` lists them all.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo "$$p" && break; done)
VENV := .venv
BIN := $(VENV)/bin
FOR_RUN := $(VENV)/.installed
FOR_DEV := $(VENV)/.installed-dev
JS := tests/js
FOR_JS := $(JS)/node_modules/.package-lock.json
# Node 20 is the oldest that the npm client still supports.
NODE := $(shell node -e 'process.exit(Number(process.versions.node.split(".")[0] < 20))' >/dev/null 2>&1 && npm --version >/dev/null 2>&1 && echo yes)
# What runs in a process of its own: a reactor that pytest-twisted started serves no other test.
APART := tests/pytest_only
# Whether a pattern has files.
have = $(wildcard $(1))

.PHONY: help run test pytest trial lint types coverage bench bench-quick js format clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

run: $(FOR_RUN) ## starts the relay on port 7330 with its files in ./data (ARGS="--port 8000" for more)
	$(BIN)/clasp-relay --data-dir ./data $(ARGS)

test: lint types js pytest trial coverage ## everything that must pass
	@$(if $(NODE),:,echo "Left out: the tests with the npm client, because there is no Node 20 or newer with npm." \
		"To run them: apt-get install nodejs npm (or a newer Node from its makers); then make test.")

pytest: $(FOR_DEV) ## the tests under pytest
	$(BIN)/pytest -q --ignore=$(APART)
	$(if $(call have,$(APART)/test_*.py),$(BIN)/pytest -q $(APART))

trial: $(FOR_DEV) ## the tests under trial
	$(BIN)/trial --reporter=text tests

lint: $(FOR_DEV) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(FOR_DEV) ## mypy --strict
	$(BIN)/mypy

coverage: $(FOR_DEV) ## branch coverage; wire and core must have all of it
	$(BIN)/coverage run -m pytest -q --ignore=$(APART) --ignore=tests/integration --ignore=tests/deploy --ignore=tests/test_packaging.py
	$(BIN)/coverage report --skip-covered
	$(BIN)/coverage report --include='src/clasp_relay/wire/*,src/clasp_relay/core/*' --show-missing --skip-covered --fail-under=100

bench: $(FOR_DEV) ## the benchmarks, 20 minutes (ARGS="--only fan-out" for some; python -m bench --help)
	$(BIN)/python -m bench $(ARGS)

bench-quick: $(FOR_DEV) ## the benchmarks that say most, 90 seconds
	$(BIN)/python -m bench --quick $(ARGS)

format: $(FOR_DEV) ## lets ruff put right what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## removes what the other targets made, ./data excepted
	rm -rf $(VENV) $(JS)/node_modules build dist .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis _trial_temp*

js: $(if $(call have,$(JS)/package.json),$(if $(NODE),$(FOR_JS),js-missing))

.PHONY: js-missing
js-missing:
	@if [ "$$CI" = true ]; then echo "The tests with the npm client need Node 20 or newer with npm." >&2; exit 1; fi

$(FOR_JS): $(call have,$(JS)/package.json $(JS)/package-lock.json)
	npm ci --prefix $(JS) --no-audit --no-fund
	@mkdir -p $(@D) && touch $@

$(FOR_RUN): setup.cfg
	$(call install,.)
	@touch $@

$(FOR_DEV): setup.cfg
	$(call install,.[dev])
	@touch $@ $(FOR_RUN)

# The .pth file is for `twistd clasp-relay`: an editable install does not show twisted/plugins to twistd.
define install
@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv is needed: apt-get install python3-venv, or make PYTHON=/its/path" >&2; exit 1; }
@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
$(BIN)/pip install --quiet --disable-pip-version-check --editable '$(1)' --config-settings editable_mode=compat
@echo '$(CURDIR)' > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/clasp_relay_root.pth"
endef
