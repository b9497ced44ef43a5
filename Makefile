# Every verb installs what it needs first; `make` alone lists them.

PYTHON ?= python3
BIN    := .venv/bin
STAMP  := .venv/setup.stamp
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test check format test-browser learn mutants bench bench-gpu bench-learning torture soak docs sentiment hh clean

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv and install pinned dependencies (does nothing when up to date)

$(STAMP): pyproject.toml constraints.txt scripts/bootstrap.py
	@$(PYTHON) scripts/bootstrap.py
	@touch $@

quickstart: setup ## run the whole pipeline on the built-in world: SFT to report
	$(BIN)/tutelage run recipes/quickstart.yaml

test: setup ## run the fast tests
	$(PYTEST) -n 2 --dist worksteal tests

test-browser: setup ## drive the annotation page with Chromium, and the servers behind it at full size
	$(PYTEST) -m "browser or soak" -s --timeout 1800 tests/browser tests/unit/feedback/server

check: setup ## formatting, lint, types and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## format the code and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

learn: setup ## run the tests that train for minutes
	$(PYTEST) -m learn --timeout 3600 tests

mutants: setup ## plant known bugs one by one and show that a test catches each
	$(BIN)/python scripts/mutants.py

bench: setup ## measure speed and memory against TRL and transformers, all rows or those in NAMES
	$(BIN)/python -m benchmarks $(NAMES)

bench-gpu: setup ## the same for rows that need a CUDA device
	$(BIN)/python -m benchmarks --device cuda

bench-learning: setup ## measure the time to a given reward against TRL, five seeds
	$(BIN)/python -m benchmarks C7

torture: setup ## kill training stages 200 times at random moments and resume them; hang each kind
	KILLS=200 HANGS=all $(PYTEST) -s --timeout 7200 tests/unit/pipeline/stages/test_kills.py \
		tests/unit/pipeline/stages/test_hangs.py

soak: setup ## train a toy for SOAK_MINUTES (10), ask a service 10,000 times; watch memory, files and threads; run 1,000 programs 16 at a time
	$(PYTEST) -m soak -s --timeout 0 tests/unit/pipeline/stages/test_soak.py tests/unit/rewards/test_service.py tests/unit/rewards/sandbox

docs: setup ## write docs/configuration.md from the configuration models
	$(BIN)/tutelage config --reference > docs/configuration.md

sentiment: setup ## run recipes/sentiment.yaml on the files in DATA=folder, or on those named in ARGS
	$(BIN)/tutelage run recipes/sentiment.yaml $(if $(DATA),--inputs.text \
		$(DATA)/labelled/sentiment_movie_reviews.jsonl.gz \
		--inputs.labelled $(DATA)/labelled/sentiment_rt_polarity.jsonl.gz) $(ARGS)

hh: setup ## run recipes/hh.yaml on the files in DATA=folder, or on those named in ARGS
	$(BIN)/tutelage run recipes/hh.yaml $(if $(DATA),--inputs.text \
		$(DATA)/text/openstax_college_success.jsonl.gz \
		$(DATA)/text/tinystories_sample.jsonl.gz \
		$(DATA)/text/wikipedia_en_sample.jsonl.gz \
		--inputs.demonstrations $(DATA)/sft/dolly_15k.jsonl.gz \
		--inputs.preferences $(DATA)/preference/hh_rlhf.jsonl.gz) $(ARGS)

clean: ## remove .venv and caches; runs are kept
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage htmlcov build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf src/*.egg-info
