# Everything a newcomer needs: `make up` runs the platform, `make test` checks it. `make help` lists the rest.
# Nothing has to be installed first except Python 3.11 or newer (with its venv module) and make.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; exit; }; done; echo python3)
# An interpreter that PYTHON=… names replaces the environment of another one; an interpreter found here by default does not.
NAMED := $(if $(filter file,$(origin PYTHON)),,--this-python)
VENV := .venv
BIN := $(VENV)/bin
BOOTSTRAP := infrastructure/local/bootstrap.py
PACKAGES := $(wildcard api_gateway archival_worker broadcast_service cache_node infrastructure load_tests shared tests bench)

.DEFAULT_GOAL := help
.PHONY: help up down test test-quick lint fix types bench load experiments faults nemesis fuzz terraform lock clean install install-dev

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: install ## start the whole platform here; Ctrl-C stops it
	@exec $(BIN)/bidding up $(ARGS)

down: install ## stop what `bidding up --detach` started
	@exec $(BIN)/bidding down $(ARGS)

# Five files at a time, on two cores: the tests wait longer than they compute. ARGS="-n 0" runs them one after the other.
# tests/distribution.py says in which order, and which files together.
# Bytecode is kept even where the environment forbids it: without it every worker compiles all tests anew.
# A test that fails beside the others runs once more, alone, as in CPython's own test run: a busy machine may stand still for
# longer than a test can wait. The output says which tests those were. A test that fails alone, too, fails the run.
test: install-dev ## all tests, against servers that the test run starts itself
	@export PYTHONDONTWRITEBYTECODE=; \
		$(BIN)/python -m pytest -n 5 --dist loadfile --no-loadscope-reorder $(ARGS); status=$$?; \
		test $$status -eq 1 || exit $$status; \
		echo; echo "Once more, one after the other: what has failed"; \
		exec $(BIN)/python -m pytest $(ARGS) -n 0 -v --last-failed --last-failed-no-failures none

test-quick: install-dev ## the tests without servers and without random searches: a minute or so
	@export PYTHONDONTWRITEBYTECODE=; \
		exec $(BIN)/python -m pytest -n 4 --dist loadfile -m "not hypothesis" tests/unit $(ARGS)

lint: install-dev ## style, formatting and import contracts, of Python and JavaScript
	@failed=; for check in "ruff check ." "ruff format --check ." "lint-imports" "oxlint --deny-warnings api_gateway/web/static"; do \
		echo "$$check"; $(BIN)/$$check || failed="$$failed; $$check"; done; \
		test -z "$$failed" || { echo "Failed: $${failed#; }. \`make fix\` mends style and formatting."; exit 1; }

fix: install-dev ## mend style and formatting, as far as a program can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install-dev ## mypy --strict over all packages and tests
	$(BIN)/mypy $(PACKAGES)

bench: install-dev ## bids per second beside a bare echo and an idiomatic gateway; archiving beside a plain COPY
	@exec $(BIN)/python -m bench $(ARGS)

load: install-dev ## 100 users bid on one item for 30 s, then the proof that nothing was lost
	@exec $(BIN)/python -m load_tests $(ARGS)

# OUT: where the results and the report go.
experiments: install-dev ## short experiments on private stacks, and their report as a page, in about six minutes
	@exec load_tests/experiments/short.sh $(BIN)/bidding $(or $(OUT),build/experiments)

# Two tests at a time, on two cores: they wait more than they compute. ARGS="-n 0" for one after the other.
faults: install-dev ## the fault tests: kill, cut and wipe the parts while bids flow; the table goes to build/faults.md
	@FAULTS_REPORT="$${FAULTS_REPORT:-build/faults}" exec $(BIN)/python -m pytest -n 2 --dist loadgroup \
		tests/faults -m "faults or not faults" $(ARGS)

nemesis: install-dev ## any two parts fail at any time, under every kind of bid: MINUTES=20 SEED=<number of a run to repeat>
	@NEMESIS_MINUTES="$${MINUTES:-$(MINUTES)}" FAULTS_SEED="$${SEED:-$(SEED)}" exec $(BIN)/python -m pytest \
		tests/faults/test_nemesis.py -k for_minutes -m faults -o log_cli=true -o log_cli_level=INFO $(ARGS)

fuzz: install-dev ## the property tests with new examples, FUZZ=20 times as many as in `make test`
	@FUZZ="$${FUZZ:-20}" exec $(BIN)/python -m pytest -m hypothesis --timeout 3600 $(ARGS)

terraform: ## check infrastructure/terraform, as far as the tools are here
	@infrastructure/terraform/check.sh

lock: ## write the lock files anew from pyproject.toml (needs uv)
	@sh requirements/lock.sh

clean: ## remove the virtual environment and caches; the data in .bidding/ stays
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

install:
	@$(PYTHON) $(BOOTSTRAP) $(NAMED) embedded

install-dev:
	@$(PYTHON) $(BOOTSTRAP) $(NAMED) dev
