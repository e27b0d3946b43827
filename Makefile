# Every target works on a fresh machine with Python 3.11 and make: the virtual environment is made
# on demand, from the lock. PYTHON chooses the interpreter; ARGS goes to the program that is run.

SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
ARGS ?=

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit("Flux-Gate needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $(READY)

.PHONY: setup
setup: $(READY) ## make .venv from the lock

.PHONY: demo
demo: $(READY) ## a whole flash sale, end to end (STAY=1 leaves it running; ARGS=--help lists the knobs)
	@$(BIN)/python manage.py demo $(if $(STAY),--stay) $(ARGS)

.PHONY: test
test: $(READY) ## the tests, on the embedded stack
	@$(BIN)/python -m pytest -m "not browser and not apache" $(ARGS)

.PHONY: test-browser
test-browser: $(READY) ## every page in headless Chromium, with screenshots in .fluxgate/screenshots
	@.ci/chromium
	@$(BIN)/python -m pytest -m browser $(ARGS)

.PHONY: test-kafka
test-kafka: $(READY) ## what faces the broker, on real Apache Kafka (Java 17 and Maven)
	@.ci/java
	@FLUXGATE_TEST_KAFKA=apache $(BIN)/python -m pytest -m "(kafka or apache) and not browser" $(ARGS)

.PHONY: simulate
simulate: $(READY) ## SEEDS=2000 seeded days of faults per mode on virtual time, then every planted bug
	@$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),2000) $(ARGS)

.PHONY: chaos
chaos: $(READY) ## kill tests on the real stack, and their broken twins (Java 17 and Maven; ARGS=--list)
	@.ci/java
	@$(BIN)/python -m tests.chaos $(ARGS)

.PHONY: bench
bench: $(READY) ## against a Node service, per CPU-second, under 10 minutes (QUICK=1: 90 s; Node.js 20 and wrk)
	@$(BIN)/python -m bench $(if $(QUICK),--quick) $(ARGS)

.PHONY: test-compose
test-compose: $(READY) ## docker-compose.yml, proved in containers (root, Debian's docker.io)
	@$(BIN)/python deploy/compose-test/run.py

.PHONY: check
check: $(READY) ## lint, types, layers, OpenAPI, deployment checks
	@.ci/check

.PHONY: check-alerts
check-alerts: ## the alert rules and their tests, with promtool (as root on Debian it is fetched)
	@cd deploy/monitoring && ../../.ci/promtool check rules alerts.yml
	@cd deploy/monitoring && ../../.ci/promtool check config prometheus.yml
	@cd deploy/monitoring && ../../.ci/promtool test rules alerts_test.yml

.PHONY: format
format: $(READY) ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: openapi
openapi: $(READY) ## write openapi.json from the code
	@$(BIN)/python manage.py export_openapi_schema --api fluxgate_site.api.api --indent 2 --sorted --output openapi.json

.PHONY: lock
lock: $(READY) ## pin the newest versions that pyproject.toml allows
	$(PYTHON) -m venv .fluxgate/lock-venv && .fluxgate/lock-venv/bin/pip install --quiet uv
	.fluxgate/lock-venv/bin/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" -q -o requirements.lock
	.fluxgate/lock-venv/bin/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" -q -o requirements-dev.lock

.PHONY: clean
clean: ## end the embedded servers and delete what they kept
	@if [ -x $(BIN)/python ]; then $(BIN)/python manage.py stack down --wipe; fi
	rm -rf .fluxgate .venv
