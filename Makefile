# `make demo` and `make test` each work as the very first command on a fresh clone, and again.

.DEFAULT_GOAL := help
.PHONY: help setup demo status test faults bench bench-large bench-gpu bench-scaling lint format generated lock clean

WORKERS ?= 2
BENCHMARKS = @PYTHONPATH=scripts:tests .venv/bin/python -m benchmarks

help: ## Say what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Create or refresh .venv from the hash-pinned lock
	@envs/setup.sh

demo: setup ## Run the default study and say where its report is
	@.venv/bin/snakemake
	@echo "The report: $(CURDIR)/results/demo/report.html"

status: ## Say how far the default study is (ARGS="--watch", ARGS="--configfile studies/x.yaml")
	@scripts/status $(ARGS)

test: setup ## Run all tests
	@.venv/bin/pytest -n $(WORKERS) --dist worksteal tests

faults: setup ## Cause every fault (every stage is killed 30 times: an hour), and make the table of docs/reliability.md
	@mkdir -p results && rm -f results/faults.jsonl
	@FEATURESPACE_FAULTS=$(CURDIR)/results/faults.jsonl .venv/bin/pytest -n $(WORKERS) --dist worksteal tests/faults tests/slurm
	@.venv/bin/python docs/make_reliability.py results/faults.jsonl

bench: setup ## Compare speed and memory with the alternatives: docs/performance.md (ARGS=--help)
	$(BENCHMARKS) bench $(ARGS)

bench-large: setup ## Decompose a matrix far beyond memory (11 GB of disk: ARGS="--scratch /where")
	$(BENCHMARKS) large $(ARGS)

bench-gpu: setup ## The same comparisons on a GPU, and what only a GPU is for
	$(BENCHMARKS) gpu $(ARGS)

bench-scaling: setup ## Time each stage at 1x, 4x and 16x the work
	$(BENCHMARKS) scaling $(ARGS)

lint: setup ## Check format, style, types and the workflow
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/snakefmt --check Snakefile rules
	@.venv/bin/mypy scripts/featurespace
	@.venv/bin/snakemake --lint

format: setup ## Format everything
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .
	@.venv/bin/snakefmt Snakefile rules

generated: setup ## Remake what is made from the code: docs/config.md, the schema, the conda file
	@.venv/bin/python docs/make_reference.py
	@.venv/bin/python envs/make_conda.py

lock: setup ## Resolve envs/requirements.in anew
	@.venv/bin/uv pip compile --upgrade --quiet --universal --python-version 3.11 --generate-hashes --no-header \
		--no-annotate --no-emit-index-url --no-emit-index-annotation -o envs/requirements.lock envs/requirements.in
	@grep '^uv==' envs/requirements.lock | cut -d' ' -f1 | .venv/bin/uv pip compile --quiet --universal \
		--python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url \
		--no-emit-index-annotation -o envs/bootstrap.lock -
	@.venv/bin/python envs/make_conda.py

clean: ## Delete the environment and all results (downloaded data stay)
	rm -rf .venv .snakemake results
