# The only ways to run things. `make demo` and `make test` work from a bare checkout with Python 3.11+.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ON_STANDIN = $(if $(URI),,$(BIN)/python tests/server/store/on_standin.py)

.PHONY: test-mongodb demo-mongodb simulate-scale demo run test check bench crash fuzz lock clean

demo: $(VENV)/.run
	$(BIN)/access-facade demo

run: $(VENV)/.run
	$(BIN)/access-facade run

test: $(VENV)/.dev
	$(BIN)/python -m pytest -q -n auto

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q -n auto

bench: $(VENV)/.dev
	$(BIN)/python -m bench

# 100 kills at each boundary of a submission, and 400 stops of workers beyond their lease; the tests have a part of it.
crash: $(VENV)/.dev
	CRASH_ROUNDS=100 $(BIN)/python -m pytest -q tests/crash

# 10,000 mutated inputs of each kind (HL7 v2, C-CDA, FHIR); FUZZ=100000 for more.
fuzz: $(VENV)/.dev
	FUZZ=$${FUZZ:-10000} $(BIN)/python -m pytest -q tests/fuzz

# The demo with its store in an empty database of a replica set, URI='mongodb://HOST/DATABASE?replicaSet=NAME'; without URI
# in the tests' stand-in for MongoDB.
demo-mongodb: $(VENV)/.dev
	$(ON_STANDIN) $(BIN)/access-facade demo --store '$(or $(URI),mongodb://STANDIN/demo?replicaSet=standin)'

# The contract of the store, the crash tests and the fleet against a real MongoDB replica set, such as
# make test-mongodb URI='mongodb://127.0.0.1:27017/?replicaSet=rs0'. It makes databases test_..., crash_..., stale-... and
# fleet_... of its own. Without URI they run against the stand-in.
test-mongodb: $(VENV)/.dev
	@echo "MongoDB peer: $(if $(URI),the server of URI,the stand-in)"
	$(ON_STANDIN) env ACCESS_FACADE_TEST_MONGODB='$(or $(URI),mongodb://STANDIN/?replicaSet=standin)' \
	  $(BIN)/python -m pytest -q -k "mongodb or engines or fleet" tests/server/store tests/crash tests/fleet

# How large an installation must be, from costs measured here (docs/scaling.md).
simulate-scale: $(VENV)/.dev
	$(BIN)/python -m bench.simulate_scale --svg docs/scaling.svg

# The locked requirements, with hashes and without a registry's address.
lock: $(VENV)/.dev
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-annotate --no-header pyproject.toml build-requirements.in -o requirements.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-annotate --no-header --extra dev pyproject.toml build-requirements.in -o requirements-dev.txt

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.txt pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
