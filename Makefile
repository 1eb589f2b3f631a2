# Everything a person or CI runs. `make demo` and `make test` install what they need first.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
SECONDS ?= 240

.PHONY: help install demo test test-deep check deploy-check format lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

install: $(VENV)/installed ## a virtual environment with everything that requirements.lock pins

$(VENV)/installed: requirements.lock pyproject.toml scripts/install.sh $(wildcard twin/native/*.p*)
	PYTHON=$(PYTHON) sh scripts/install.sh $(VENV)
	@touch $@

demo: install ## 200 cars round the whole loop, every message counted; SECONDS=240
	$(BIN)/cartwin demo --seconds $(SECONDS)

test: install ## linters, types, import rules, unit, property, integration, end to end
	PYTHON=$(PYTHON) sh scripts/test-parts.sh
	$(MAKE) check
	$(BIN)/python -m pytest -m "not deep" -n 2 --dist loadfile --no-loadscope-reorder

test-deep: install ## long fault, browser and fuzz suites
	PYTHON=$(PYTHON) sh scripts/test-parts.sh deep
	$(BIN)/python -m pytest -m deep

check: install ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

deploy-check: install ## k8s/, terraform/, images, rules and dashboards, without a cluster or a cloud
	PYTHON=$(PYTHON) sh scripts/deploy-tools.sh
	$(BIN)/python -m k8s.checks

format: install ## rewrite the sources in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: install ## pin the newest versions that pyproject.toml allows
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet pyproject.toml --all-extras --python-version 3.11 \
	  --generate-hashes --no-header --upgrade -o requirements.lock

clean: ## remove what was built and what demos left
	rm -rf $(VENV) build dist twin/native/*.c twin/native/*.so .mypy_cache .ruff_cache .pytest_cache .hypothesis .cartwin-demo .cartwin-bench
