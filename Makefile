# Everything starts from here; see README.md. The steps are the scripts in
# images/setup/: each is skipped when its work is done.

SHELL := /bin/bash
.NOTPARALLEL:
.DEFAULT_GOAL := help

SETUP := images/setup
BIN := .venv/bin
SOURCES := acceptutils appliance images pyqmail tests ucspi
DEMO_CLIENTS := curl swaks
# A process that has collected thousands of tests forks slowly: three share them.
# A test that hangs fails; the run goes on (in a new process, where three share the tests).
PARALLEL := $(BIN)/pytest --numprocesses 3 --dist loadfile --timeout 180 --timeout-method thread
INTEGRATION := $(BIN)/pytest --timeout 600 --durations 10
TEST_CLIENTS := curl msmtp mpop openssl swaks

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

.PHONY: up
up: venv image ## Set up what is missing, start the appliance, print how to send and fetch a mail
	@$(SETUP)/clients.sh $(DEMO_CLIENTS)
	@compose/up.sh

.PHONY: down
down: ## Stop the appliance; the mail stays on its volume
	@docker compose -f compose/compose.yaml down --remove-orphans

.PHONY: test
test: lint image clients ## Set up what is missing, then lint, unit and integration tests
	@$(PARALLEL) tests/unit tests/crash
	@$(INTEGRATION) tests/integration

.PHONY: lint
lint: venv ## ruff and mypy
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/mypy

.PHONY: unit
unit: venv ## The tests that need no container
	@$(PARALLEL) tests/unit

.PHONY: integration
integration: venv image clients ## The tests of the running appliance, with real clients
	@$(INTEGRATION) tests/integration

.PHONY: test-attacks
test-attacks: venv image clients ## The attack suite alone
	@$(INTEGRATION) tests/integration/attacks

FUZZ_SECONDS ?= 20
.PHONY: fuzz
fuzz: venv ## Fuzz every reader of foreign bytes, FUZZ_SECONDS= each (20)
	@$(BIN)/pip --quiet install atheris
	@for target in $$($(BIN)/python -c 'import sys; sys.path.insert(0, "tests/fuzz"); \
	    import targets; print(*targets.TARGETS)'); do \
	    echo "fuzz: $$target"; \
	    $(BIN)/python tests/fuzz/run.py $$target $(FUZZ_SECONDS) 2>&1 | tail -n 3 ; \
	    test "$${PIPESTATUS[0]}" = 0 || exit 1; \
	done

.PHONY: crash
crash: venv ## Make the mail programs and the disk fail at every point; writes docs/crash-safety.md
	@PYTHONPATH=tests/crash:. $(BIN)/python tests/crash/report.py

.PHONY: image
image: engine ## The appliance's image (BASE_IMAGE=, MAILER_IMAGE=, UCSPI_IMAGE=, CHECKPASSWORD=, APPLIANCE_IMAGE=)
	@$(SETUP)/base-image.sh
	@$(SETUP)/image.sh

.PHONY: engine
engine: ## A running Docker engine with docker compose
	@$(SETUP)/engine.sh
	@$(SETUP)/compose.sh

.PHONY: venv
venv: ## The virtual environment .venv
	@$(SETUP)/venv.sh

.PHONY: clients
clients: ## The mail clients that the integration tests drive
	@$(SETUP)/clients.sh $(TEST_CLIENTS)

.PHONY: clean
clean: ## Remove the containers, images and files made here; the mail stays on its volume
	@$(SETUP)/clean.sh
