# Everything a developer or a newcomer runs. `make run` and `make test` need Python 3.11 and nothing else.
PYTHON ?= $(or $(shell command -v python3.11),python3)
VENV := .venv
BIN := $(VENV)/bin
HOST ?= 127.0.0.1
PORT ?= 8000
# Where torch comes from: on a machine without a GPU https://download.pytorch.org/whl/cpu is the small build.
TORCH_INDEX ?=
IMAGE ?= ddpm-lookalike:$(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
BUNDLE := $(lastword $(sort $(wildcard models/faces-64/*)))

.PHONY: help env run faces-128 faces-256 test check lint format hostile bench gpu-check gpu-packages image lock image-test clean

help:  ## Say what there is
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

# torch comes by pip alone, whose settings may name a build of it. For all else uv takes a minute less; it does not know
# pip's settings, so where they name another index or a proxy, or where uv fails, pip does it.
ALL := --constraint constraints.txt --editable '.[dev]'

env: $(VENV)/.installed  ## Make the environment in .venv

$(VENV)/.installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed and $(PYTHON) is not here: make env PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; v = "%d.%d" % sys.version_info[:2]; v == "3.11" or sys.exit(f"Python 3.11 is needed, {sys.executable} is {v}: make env PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	@! $(BIN)/pip config list | grep -Eq '[.](index-url|no-index|proxy)=' \
	  && $(BIN)/pip install --quiet --no-compile uv && $(BIN)/uv pip install --quiet --python $(BIN)/python $(ALL) \
	  || $(BIN)/pip install --quiet --no-compile $(ALL)
	@$(BIN)/python -m compileall -q -j 0 -x /tests/ $(VENV)/lib >/dev/null || true
	@touch $@

# Off loopback the front door wants a token: one is made, and the page's link carries it.
run: env  ## Pack the embedded model and serve it; Ctrl-C stops all of it (PORT=9000 elsewhere, HOST=0.0.0.0 for others too)
	@$(BIN)/ddpm pack --replace $(BUNDLE)
ifeq ($(HOST),127.0.0.1)
	@exec $(BIN)/ddpm serve $(ARGS)
else
	@test -s .tokens || (umask 077 && $(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(24))' > .tokens)
	@echo "This is plain HTTP: only for a network that you trust (README, Five minutes)."
	@echo "The page, for whoever you give this link: http://$$(hostname):$(PORT)/#token=$$(head -n 1 .tokens)"
	@exec $(BIN)/ddpm serve --host $(HOST) --tokens .tokens $(ARGS)
endif

# $(call first,NAME,VERSION): pack a model and put it first in models.yaml, so that `make run` shows its faces.
define first
	@$(BIN)/ddpm pack --replace models/$(1)/$(2)
	@$(BIN)/python -c 'from contextlib import ExitStack; from pathlib import Path; from ddpm_service.torchserve import desired; \
	  file, name, version = Path("models.yaml"), "$(1)", "$(2)"; \
	  ExitStack().enter_context(desired.changing(Path("model_store"), lambda _: None)); \
	  models = desired.load(file).with_version(name, version, f"{name}_{version}.mar", default=True).models; \
	  desired.save(desired.Desired(models={name: models[name], **models}), file)'
endef

faces-128: env  ## Serve the 128 px face model first from then on: sharper, and broken more often
	$(call first,faces-128,0.9.4)

faces-256: env  ## Fetch a 256 px face model from the hub (460 MB) and serve it first from then on
	@test -e models/faces-256/1.0 || $(BIN)/ddpm import google/ddpm-celebahq-256@cd5c944777ea2668051904ead6cc120739b86c4d \
	  --sha256 efff89712093ad060ce99d9b461bbe542b49d8dd4ce30f23fe5761dca292361d --out models/faces-256/1.0 --domain human_face \
	  --terms 'Research use only: it was trained on CelebA-HQ, whose terms allow no more.'
	$(call first,faces-256,1.0)

# Three files at a time on two cores: tests wait for processes more than they compute. A file's tests share what it
# starts, and the order is that of tests/conftest.py.
FILES := --numprocesses 3 --dist loadfile --no-loadscope-reorder

# Hundreds of processes import our code, which is compiled once for them also where the environment says otherwise.
test check: export PYTHONDONTWRITEBYTECODE =

test: env  ## All tests, with a real TorchServe
	$(BIN)/pytest $(FILES) --durations 20

check: env lint  ## Lint and the tests that need no TorchServe, in about a minute
	$(BIN)/pytest $(FILES) -m 'not torchserve'

lint: env  ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: env  ## Put the code into the house's form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

hostile: env  ## A thousand hostile requests by every way in, and what became of them and of a neighbour
	HOSTILE=1000 $(BIN)/pytest -q tests/e2e/test_hostile.py

bench: env  ## Measure; tables and pictures go to bench/
	$(BIN)/ddpm bench --out bench

gpu-check: env  ## Try scripts/gpu_check.py here, in tiny sizes: it is known to work before a GPU is at hand
	$(BIN)/python scripts/gpu_check.py --tiny --minutes 30 --out gpu-check.json

gpu-packages: env  ## Gather in .gpu-packages/ what scripts/gpu_check.py needs where there is only PyTorch (Python 3.12)
	$(BIN)/python scripts/gpu_packages.py

# With CUDA: make image IMAGE=ddpm-lookalike:0.1.0-cuda EXTRA_BUILD_ARGS='--build-arg TORCH=cuda'
image:  ## Build the container image with docker, podman, or buildah alone (EXTRA_BUILD_ARGS, PIP_CONF: scripts/image.sh)
	@IMAGE=$(IMAGE) scripts/image.sh build $(EXTRA_BUILD_ARGS)

lock: env  ## List the image's packages with their hashes, in the versions of .venv (BUILDS: scripts/lock.sh)
	@scripts/lock.sh $(BUILDS)

image-test: env  ## Run the image as a cluster would: faces over REST and gRPC, then SIGTERM at work
	@IMAGE=$(IMAGE) PYTHON=$(BIN)/python scripts/image.sh test

clean:  ## Remove what was made, not what was trained
	rm -rf $(VENV) .gpu-packages gpu-check.json build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache model_store/*.mar logs
