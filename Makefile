# Targets that set up what they need: Python 3.11 to 3.13, bash, make and a package index are enough.
SHELL := /bin/bash
.DEFAULT_GOAL := help
DOCKER ?= docker
ACCELERATOR ?= cpu
IMAGE ?= lmworks:$(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)$(if $(filter gpu,$(ACCELERATOR)),-gpu)
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
BIN := .venv/bin

.PHONY: help setup demo test test-slow test-peers test-long check bench image lock clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/'

setup: .venv/ready ## .venv with everything that is needed

# A virtual environment with lmworks as locked, and what the second argument names beside it. setuptools warns at every editable
# installation whose folders are mapped to other names, as ours are (lmworks.tfx is tfx/); that warning alone is filtered.
define install
	"$(PYTHON)" -m venv $(1)
	$(1)/bin/python -m pip install --quiet --require-hashes -r requirements.lock
	$(if $(2),$(1)/bin/python -m pip install --quiet $(2))
	PYTHONWARNINGS='ignore:Editable installation' $(1)/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@
endef

.venv/ready: pyproject.toml requirements.lock
	@"$(PYTHON)" -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v[:2] <= (3, 13) else "lmworks needs Python 3.11 to 3.13, and this is %d.%d; set PYTHON=" % v[:2])'
	$(call install,.venv)

demo: setup ## fine-tune, evaluate and export a sentiment classifier
	$(BIN)/lmworks run --config=configs/sentiment.yaml
	$(BIN)/lmworks predict --servable=runs/sentiment/export/servable --text='A triumph from the first minute to the last.'

test: setup ## the tests, under 15 minutes on 2 cores
	$(BIN)/python -m pytest

test-slow: setup ## kills, several processes, big data
	$(BIN)/python -m pytest -m slow

test-peers: .venv-peers/ready ## parity with PyTorch and transformers
	.venv-peers/bin/python -m pytest -m peers tests/peers

test-long: setup ## outside .ci/run: a whole language model, what the intervals cover
	$(BIN)/python -m pytest -m long

check: setup ## ruff and mypy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@mkdir -p build/types/lmworks && for folder in configs models tfx pipeline; do ln -sfn "$(CURDIR)/$$folder" build/types/lmworks/$$folder; done
	MYPYPATH=build/types $(BIN)/mypy --namespace-packages -p lmworks.configs -p lmworks.models -p lmworks.tfx -p lmworks.pipeline

.venv-peers/ready: .venv/ready tests/benchmarks/requirements.txt
	$(call install,.venv-peers,-r tests/benchmarks/requirements.txt)

bench: export LMWORKS_BENCH := $(CURDIR)/build/bench.jsonl
bench: setup .venv-peers/ready ## speed beside PyTorch and transformers, as one table of ratios; needs a quiet machine
	@mkdir -p build && rm -f "$$LMWORKS_BENCH"
	.venv-peers/bin/python tests/benchmarks/finetune.py
	.venv-peers/bin/python tests/benchmarks/pretrain.py
	.venv-peers/bin/python tests/benchmarks/tokenization.py
	.venv-peers/bin/lmworks run --config=configs/sentiment.yaml
	.venv-peers/bin/python tests/benchmarks/serve.py
	$(BIN)/python tests/benchmarks/transfer.py
	.venv-peers/bin/python tests/benchmarks/table.py

# Any builder with Docker's options will do: DOCKER=podman. BASE and PIP_CONF (a pip.conf with your own index): see Dockerfile.
image: ## the container image for clusters: ACCELERATOR=cpu or gpu
	@$(DOCKER) info >/dev/null 2>&1 || { echo "make image: '$(DOCKER) info' gets no answer; start Docker, or name another builder: make image DOCKER=podman" >&2; exit 2; }
	$(DOCKER) build --tag $(IMAGE) --build-arg ACCELERATOR=$(ACCELERATOR) $(if $(BASE),--build-arg BASE=$(BASE)) $(if $(PIP_CONF),--secret id=pip.conf$(comma)src=$(PIP_CONF)) .

comma := ,

define pin
	uv pip compile pyproject.toml $(1) --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet --output-file $(2)
endef

image_extras := --extra image --extra jax --extra s3 --extra gcs

lock: ## pin everything with hashes, and of it what the images hold; needs uv
	$(call pin,--extra dev --extra jax --extra kubeflow --extra vertex --extra s3,requirements.lock)
	$(call pin,$(image_extras) --constraint requirements.lock,requirements-cpu.lock)
	$(call pin,$(image_extras) --extra gpu --extra jax-gpu --constraint requirements-cpu.lock,requirements-gpu.lock)

clean: ## remove what was built and run
	rm -rf build runs .venv .venv-peers
