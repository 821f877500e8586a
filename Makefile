# Every command of framelens. `make help` lists them.
# The virtual environment makes itself when a command first needs it,
# and again when setup.cfg, pyproject.toml or constraints.txt change.

PYTHON ?= python3
MODEL  ?= dense-tiles
RUN    ?=
PAPER  ?=
ARGS   ?=

# make itself says nothing of a variable that nobody reads, as in `make probe model=x`.
UNKNOWN := $(strip $(foreach name,$(filter-out PYTHON MODEL RUN PAPER ARGS,$(.VARIABLES)),\
  $(if $(filter command,$(firstword $(origin $(name)))),$(name))))
$(if $(UNKNOWN),$(error there is no variable $(UNKNOWN): use MODEL, RUN, PAPER, ARGS or PYTHON, in capitals))

# The comparisons that README shows.
COMPARED := reports/gallery/compare/tiles reports/gallery/compare/digits

BIN := .venv/bin

# Two processes share the tests; all tests of a file are in one, so that they share what the file prepares.
SHARED := --numprocesses 2 --dist loadfile --no-loadscope-reorder
INSTALLED := .venv/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# pyright brings its own node; it need not ask whether a newer pyright exists.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

# Images of containers often forbid Python to keep what it compiled. Every process would then compile torch and all
# else that it imports again, which takes longer than the import itself: pip compiles nothing here (see below).
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup check latents probe figures train evaluate compare split compare-train scd-bench test suite test-fast lint docs notebooks clean

help: ## list the commands
	@awk -F ':[^#]*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(INSTALLED) ## install into .venv; other commands do it by themselves (PYTHON=python3.12 chooses the Python)

check: $(INSTALLED) ## whether a model keeps the contract that every number rests on: MODEL=my_adapter.py:load
	$(BIN)/framelens check --model "$(MODEL)" $(ARGS)

latents: $(INSTALLED) ## encode videos and prompts for probing: MODEL=... ARGS="--videos footage/ --out clips.safetensors"
	$(BIN)/framelens latents --model "$(MODEL)" $(ARGS)

probe: $(INSTALLED) ## probe a model and write its page: MODEL=dense-tiles ARGS="--clips 8"
	run=$$($(BIN)/framelens probe --model "$(MODEL)" $(ARGS)) && $(BIN)/framelens figures --run "$$run" --workers 2

figures: $(INSTALLED) ## redraw figures and page from results: RUN=runs/dense-tiles/first, or all runs; PAPER=1 for those of the paper
	$(BIN)/framelens figures $(if $(RUN),--run $(RUN)) $(if $(PAPER),--paper) $(ARGS)

train: $(INSTALLED) ## train a network: MODEL=dense-tiles ARGS="--steps 2000"
	$(BIN)/framelens train --model "$(MODEL)" $(ARGS)

evaluate: $(INSTALLED) ## score a model's next frame on held-out clips: MODEL=dense-tiles ARGS="--clips 32"
	$(BIN)/framelens evaluate --model $(MODEL) $(ARGS)

compare: $(INSTALLED) ## table and figures, dense against separated at an equal budget: RUN=runs/compare/tiles
	for run in $(or $(RUN),$(COMPARED)); do \
	  $(BIN)/framelens compare $$run && $(BIN)/framelens figures --run $$run || exit $$?; done

split: $(INSTALLED) ## act on a plan and draw what it buys: MODEL=dense-tiles ARGS="--plan runs/dense-tiles/default/plan.json"
	run=$$($(BIN)/framelens split --model "$(MODEL)" $(ARGS)) && $(BIN)/framelens figures --run "$$run"

compare-train: $(INSTALLED) ## train that comparison anew, then draw it: ARGS="--videos tiles --seeds 2"
	run=$$($(BIN)/framelens compare-train $(ARGS)) && $(MAKE) compare RUN="$$run"

scd-bench: $(INSTALLED) ## cost card and timing of dense against separated: ARGS="--preset minecraft"
	run=$(or $(RUN),runs/bench/$$(date +%Y%m%d-%H%M%S)) && \
	  $(BIN)/framelens bench scd --out "$$run" $(ARGS) && $(BIN)/framelens figures --run "$$run"

test: $(INSTALLED) ## lint, run the tests and execute the notebooks: ARGS="-k sampler"
	$(MAKE) -j2 lint suite

suite: $(INSTALLED) ## run the tests and execute the notebooks, without lint
	$(BIN)/python -m pytest $(SHARED) $(ARGS)

test-fast: $(INSTALLED) ## run the tests that take seconds, without notebooks
	$(BIN)/python -m pytest $(SHARED) -m "not slow" tests $(ARGS)

lint: $(INSTALLED) ## ruff, pyright, and the table of folders with what they import
	$(BIN)/ruff check
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python tests/test_imports.py

docs: $(INSTALLED) ## build the documents as a site in build/site, every link checked: ARGS=--execute runs the notebooks
	$(BIN)/python docs/build.py $(ARGS)

notebooks: $(INSTALLED) ## open the notebooks in Jupyter Lab
	$(BIN)/jupyter lab notebooks/

clean: ## remove .venv and caches; runs/ stays
	rm -rf .venv .pytest_cache .ruff_cache build *.egg-info
	find . -name __pycache__ -type d -not -path './runs/*' -prune -exec rm -rf {} +

# The stamp is written last, so an interrupted installation leaves none; what
# such an installation did leave is thrown away. torch goes first and alone: pip
# then keeps whichever build of it the machine's package index offers. Python compiles what it imports, which
# is a tenth of what pip would compile, and saves half of the time. The link is for
# editors and pyright, which do not see what an editable installation adds to Python's imports.
$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null || \
	  { echo "framelens needs Python 3.11 or 3.12, but '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo missing): try make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -f $@ || $(PYTHON) -m venv --clear .venv
	@echo "installing into .venv, which takes minutes the first time"
	$(PIP) install --no-compile --constraint constraints.txt torch
	$(PIP) install --no-compile --constraint constraints.txt --editable '.[all,dev]'
	@ln -sfn "$(CURDIR)" "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/framelens"
	@touch $@
