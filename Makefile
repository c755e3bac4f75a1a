# One command each, no activation: make run, make test. `make help` lists them all.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo "$$p" && break; done)
VENV := .venv
BIN := $(VENV)/bin
FOR_RUN := $(VENV)/.installed
FOR_DEV := $(VENV)/.installed-dev
JS := tests/js
FOR_JS := $(JS)/node_modules/.package-lock.json
APP := apps/chat
FOR_APP := $(APP)/node_modules/.package-lock.json
# The folder where the relay looks for the built app; a wheel that is built afterwards includes it.
WEB := src/clasp_relay/web
BUILT := $(WEB)/index.html
APP_SOURCES := $(shell find $(APP) -path $(APP)/node_modules -prune -o -path $(APP)/dist -prune -o -path $(APP)/tests -prune -o -type f -print 2>/dev/null)
# Node 20 is the oldest that the npm client still supports.
NODE := $(shell node -e 'process.exit(Number(process.versions.node.split(".")[0] < 20))' >/dev/null 2>&1 && npm --version >/dev/null 2>&1 && echo yes)
CHROMIUM := $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
# Tests that run in a process of their own, since no other test can use a reactor that pytest-twisted started.
APART := tests/pytest_only
# Tests that start processes, whose lines coverage does not see.
SLOW := tests/integration tests/deploy tests/test_packaging.py
# Tests that run relays as clusters, and tests that install and deploy them.
CLUSTERS := $(wildcard tests/integration/test_cluster*.py)
DEPLOYED := tests/deploy tests/test_packaging.py
# A test that prints what it has counted.
DURABILITY := tests/integration/test_durability.py
# Whether a pattern has files.
have = $(wildcard $(1))

.PHONY: help run demo cluster-demo test app app-test e2e pytest slow clusters deployment trial trial-units lint types coverage bench bench-quick soak cluster-soak durability js format lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

run: $(FOR_RUN) app ## starts the relay, with the chat at http://localhost:7350/ (ARGS="--port 8000" for more)
	$(BIN)/clasp-relay --data-dir ./data $(ARGS)

demo: $(FOR_RUN) ## starts a relay with OSC, MQTT and a lighting desk for a browser (examples/README.md)
	$(BIN)/clasp-relay --config examples/demo.toml $(ARGS)

cluster-demo: $(FOR_DEV) app ## starts two relays as one, with the chat of each for two browsers (examples/README.md; ARGS=--open opens them)
	$(BIN)/python examples/cluster_demo.py $(ARGS)

test: lint types js ## everything that must pass
	@echo "Three at a time (two of them wait more than they work), each told when it is done: processes and sockets, the chat in browsers, clusters, coverage, deployment, trial, the chat."
	$(MAKE) --no-print-directory -j3 --output-sync=target slow e2e clusters coverage deployment trial-units app-test
	@$(if $(NODE),:,echo "Left out: the chat and the tests with the npm client, because there is no Node 20 or newer" \
		"with npm. To run them: apt-get install nodejs npm (or a newer Node from its makers); then make test.")

app: $(if $(NODE),$(BUILT),app-missing) ## builds the chat, where there is Node

app-test: $(if $(NODE),$(FOR_APP)) ## the chat's lint, types and tests
	$(if $(NODE),cd $(APP) && npm run --silent lint && npm run --silent types && npx vitest run --coverage)

e2e: $(if $(NODE),$(FOR_DEV) $(BUILT)) ## the chat in browsers, against a relay
	$(if $(NODE),$(if $(CHROMIUM),cd $(APP) && PYTHON="$$OLDPWD/$(BIN)/python" npm run --silent e2e,\
		@if [ "$$CI" = true ]; then echo "The chat's tests in browsers need Chromium." >&2; exit 1; fi; \
		echo "Left out: the chat in browsers, because there is no Chromium. To run it: apt-get install chromium; then make e2e."))

pytest: $(FOR_DEV) ## the tests under pytest
	$(BIN)/pytest -q --ignore=$(APART)
	$(if $(call have,$(APART)/test_*.py),$(BIN)/pytest -q $(APART))

slow: $(FOR_DEV) ## tests that coverage leaves out: processes, sockets, clients
	$(BIN)/pytest -q $(addprefix --ignore=,$(DURABILITY) $(CLUSTERS)) tests/integration
	$(BIN)/pytest -q -s $(DURABILITY)
	$(if $(call have,$(APART)/test_*.py),$(BIN)/pytest -q $(APART))

clusters: $(FOR_DEV) ## the same, of several relays as one
	$(BIN)/pytest -q $(CLUSTERS)

deployment: $(FOR_DEV) ## the same, of scripts, containers, units and packages
	$(BIN)/pytest -q $(DEPLOYED)

durability: $(FOR_DEV) ## 1,000 kills under load, and counts what is lost; 1,000 losses of power (DURABILITY_ROUNDS=100 for fewer)
	DURABILITY_ROUNDS=$(or $(DURABILITY_ROUNDS),1000) $(BIN)/pytest -q -s $(DURABILITY)
	POWER_LOSSES=$(or $(DURABILITY_ROUNDS),1000) $(BIN)/pytest -q tests/integration/test_power_loss.py

# Without the variable CI the two tests that last a minute with it take seconds, and there are fewer kills: `slow` runs
# all of them in full.
trial: $(FOR_DEV) ## the tests under trial, all of them
	CI= DURABILITY_ROUNDS=5 $(BIN)/trial --reporter=text tests

# Tests that start processes are left to `slow`: they use the relay from outside, so the runner makes no difference.
trial-units: $(FOR_DEV) ## the tests under trial, without those that start processes
	CI= $(BIN)/trial --reporter=text $(filter-out $(SLOW) $(APART),$(wildcard tests/test_*.py)) \
		$(foreach each,$(filter-out $(SLOW) $(APART),$(patsubst %/__init__.py,%,$(wildcard tests/*/__init__.py))),$(subst /,.,$(each)))

lint: $(FOR_DEV) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(FOR_DEV) ## mypy --strict
	$(BIN)/mypy

coverage: $(FOR_DEV) ## branch coverage; wire and core must have all of it
	$(BIN)/coverage run -m pytest -q --ignore=$(APART) $(addprefix --ignore=,$(SLOW))
	$(BIN)/coverage report --skip-covered
	$(BIN)/coverage report --include='src/clasp_relay/wire/*,src/clasp_relay/core/*' --show-missing --skip-covered --fail-under=100

bench: $(FOR_DEV) ## the benchmarks, 20 minutes (ARGS="--only fan-out" for some; python -m bench --help)
	$(BIN)/python -m bench $(ARGS)

bench-quick: $(FOR_DEV) ## the benchmarks that say most, 90 seconds
	$(BIN)/python -m bench --quick $(ARGS)

soak: $(FOR_DEV) ## random lives of sessions; then an hour of honest clients among attackers (ARGS="--minutes 5" for less)
	FUZZ_EXAMPLES=1000 $(BIN)/pytest -q tests/access/test_sessions_fuzz.py
	$(BIN)/python -m tests.integration.soak $(ARGS)

cluster-soak: $(FOR_DEV) ## half an hour of faults drawn at random in a cluster, as root (ARGS="--minutes 5" for less)
	$(BIN)/python -m tests.integration.cluster_faults $(ARGS)

format: $(FOR_DEV) ## lets ruff put right what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: app-missing
app-missing:
	@echo "Without Node 20 or newer with npm the relay runs without its chat page: apt-get install nodejs npm; then make run."

$(BUILT): $(FOR_APP) $(APP_SOURCES)
	cd $(APP) && npx vite build --outDir "$$OLDPWD/$(WEB)" --emptyOutDir --logLevel warn
	@touch $@

$(FOR_APP): $(call have,$(APP)/package.json $(APP)/package-lock.json)
	npm ci --prefix $(APP) --no-audit --no-fund
	@mkdir -p $(@D) && touch $@

# For every Python that the relay supports, with the setuptools that builds the relay's own wheel.
lock: ## renews requirements.lock, the versions and hashes of what the image holds
	$(PYTHON) -m venv --clear build/lock
	build/lock/bin/pip install --quiet --disable-pip-version-check uv
	echo 'setuptools >= 77' | build/lock/bin/uv pip compile --universal --python-version 3.11 --upgrade --generate-hashes --extra workers \
		--quiet --custom-compile-command 'make lock' --output-file requirements.lock setup.cfg -

clean: ## removes what the other targets made, ./data excepted
	rm -rf $(VENV) $(JS)/node_modules $(APP)/node_modules $(APP)/dist $(WEB) build dist .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis _trial_temp*

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

# The .pth file is for `twistd clasp-relay`: twistd does not find twisted/plugins of an editable install.
define install
@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv is needed: apt-get install python3-venv, or make PYTHON=/its/path" >&2; exit 1; }
@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
$(BIN)/pip install --quiet --disable-pip-version-check --editable '$(1)' --config-settings editable_mode=compat
@printf '%s\n' "$$PWD" > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/clasp_relay_root.pth"
endef
