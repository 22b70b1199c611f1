PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help run test tools soak bench check format lint types imports drift proto edge generate release lock clean

help: ## List what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

run: $(VENV)/.ready ## Bring up the whole stack; options with ARGS="--http-port 8001"
	@$(BIN)/nimbus up $(ARGS)

# More than two cores: a quarter of their time, tests wait for servers to start, stop or come back.
TESTERS ?= 3

test: $(VENV)/.ready-dev ## Run all tests against real servers; options with ARGS="-k name"
	@$(BIN)/pytest -n $(TESTERS) --dist loadfile $(ARGS)

tools: $(VENV)/.ready-dev ## Install what README's examples and development use beside Nimbus: requests, grpcurl and more

# For as many kills and as many seconds at least.
KILLS   ?= 50
SECONDS ?= 0

soak: $(VENV)/.ready-dev ## Kill parts of the stack at random, and look for lost events; longer with KILLS=500 or SECONDS=3600
	@PYTHONPATH=tests:tests/e2e $(BIN)/python tests/soak/crash_soak.py --kills $(KILLS) --seconds $(SECONDS)
	@PYTHONPATH=tests:tests/integration $(BIN)/python tests/soak/segment_soak.py --kills $(KILLS) --seconds $(SECONDS)

bench: $(VENV)/.ready-dev ## Measure the figures beside their references; options with ARGS="--only grpc,rest"
	@PYTHONPATH=tests $(BIN)/python tests/bench/figures.py $(ARGS)

check: format lint types imports drift proto edge ## Run every check that is not a test

format: $(VENV)/.ready-dev ## Format the code; in CI, check that it is
	@$(BIN)/ruff format $(if $(CI),--check) .

lint: $(VENV)/.ready-dev ## Check the style
	@$(BIN)/ruff check .

types: $(VENV)/.ready-dev ## Check the types
	@$(BIN)/mypy

imports: $(VENV)/.ready-dev ## Check who imports whom
	@$(BIN)/lint-imports --no-logo

drift: $(VENV)/.ready-dev ## Check that gen/ is what the protos say
	@$(BIN)/python proto/generate.py --check

proto: $(VENV)/.ready-dev ## Check the protos: style, comments, and no break of the API as released
	@$(BIN)/python proto/generate.py --lint

edge: $(VENV)/.ready-dev ## Check that Envoy takes its configuration
	@folder=$$(mktemp -d) && trap 'rm -r "$$folder"' EXIT && \
	for environment in development production; do \
		NIMBUS_ENVIRONMENT=$$environment NIMBUS_ALLOWED_ORIGINS='["https://example.com"]' $(BIN)/nimbus envoy render \
			--socket "$$folder/worker.sock" --websocket-socket "$$folder/worker.ws.sock" --admin-socket "$$folder/admin.sock" > "$$folder/$$environment.yaml" && \
		$(BIN)/envoy --mode validate --log-level error -c "$$folder/$$environment.yaml" || exit 1; \
	done

generate: $(VENV)/.ready-dev ## Write gen/ from the protos
	@$(BIN)/python proto/generate.py

release: $(VENV)/.ready-dev ## Keep the protos as the API that later versions must not break
	@$(BIN)/python proto/generate.py --release

lock: $(VENV)/.ready-dev ## Pin the newest versions that pyproject.toml allows
	@$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--custom-compile-command "make lock" --extra dev pyproject.toml -o requirements-dev.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--custom-compile-command "make lock" --constraint requirements-dev.lock pyproject.toml -o requirements.lock

clean: ## Remove what was made here, but not the data in .nimbus/
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Nimbus needs Python 3.11 or newer: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# The lock files bring every dependency; the projects themselves are linked in from here.
# An editable installation copies gen/: it is made anew where that has changed.
$(VENV)/.ready: $(VENV)/bin/python requirements.lock pyproject.toml clients/python/pyproject.toml $(wildcard gen/nimbus/*.*)
	@echo "Installing into $(VENV) ..."
	@$(PIP) install --quiet --requirement requirements.lock
	@$(PIP) install --quiet --no-deps --editable . --editable clients/python
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready requirements-dev.lock
	@echo "Installing what development needs into $(VENV) ..."
	@$(PIP) install --quiet --requirement requirements-dev.lock
	@touch $@
