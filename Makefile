# `make demo` and `make test` are all that a stranger needs; both build .venv on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed.stamp
EDITS ?= 192
QUICK := not gpu and not weights and not chaos
# else each of Ray's processes would compile all that it imports anew, 15 s of a core for a backbone
export PYTHONDONTWRITEBYTECODE :=
# of a folder, the files that start Ray: collecting the others would read half of the environment
RAY_TESTS = $(shell grep -l 'mark\.ray' tests/$(1)/*.py)

.DEFAULT_GOAL := help
.PHONY: help demo test check fix docs coverage wheel parity chaos bench quality zoo constraints clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# not compiled here: of 26 000 modules most are never imported, and the others are compiled then
$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, found %s: make PYTHON=python3.11" % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-compile --quiet -r constraints.txt
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --quiet --no-build-isolation -e .
	@touch $(STAMP)

demo: $(STAMP) ## edit the held-out scenes of examples/demo, with a report under out/demo
	$(BIN)/editfarm demo

# what needs no Ray in parallel; then a process each, so that one folder's Ray is gone before the next's
test: $(STAMP) ## everything that runs on a fresh machine, 15 to 30 minutes on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile -m "$(QUICK) and not ray" \
	  tests/farm tests/parity tests/actors tests/jobs tests/serve tests/cluster tests/docs
	$(BIN)/python -m pytest -m "$(QUICK) and ray" $(call RAY_TESTS,actors)
	$(BIN)/python -m pytest -m "$(QUICK) and ray" $(call RAY_TESTS,jobs)
	$(BIN)/python -m pytest -m "$(QUICK)" tests/chaos
	$(BIN)/python -m pytest -m "$(QUICK) and ray" $(call RAY_TESTS,serve)
	$(BIN)/python -m pytest -m "$(QUICK) and ray" $(call RAY_TESTS,cluster)

check: $(STAMP) ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/pyright

fix: $(STAMP) ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP) ## all pages as a site that asks no other machine for anything, under out/site
	$(BIN)/editfarm methods page > docs/options.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo out/site/index.html

# tests/cluster asks every Ray for a token, so it has a process of its own
coverage: $(STAMP) ## what the tests reach within their own processes; HTML under out/coverage
	$(BIN)/python -m pytest -m "$(QUICK)" --cov --cov-report= \
	  tests/farm tests/parity tests/jobs tests/serve
	$(BIN)/python -m pytest -m "$(QUICK)" --cov --cov-append --cov-report= tests/actors tests/docs
	$(BIN)/python -m pytest -m "$(QUICK)" --cov --cov-append --cov-report=term \
	  --cov-report=html:out/coverage tests/cluster

wheel: $(STAMP) ## dist/*.whl, with the scenes' weights and the commit it was built from
	$(BIN)/python -m pip wheel --disable-pip-version-check --no-deps --no-build-isolation --quiet -w dist .

parity: $(STAMP) ## against golden vectors and other libraries
	$(BIN)/python -m pytest tests/parity

chaos: $(STAMP) ## kill processes of running edits, again and again, and all long tests; an hour or more
	set -e; for folder in chaos farm actors jobs serve cluster; do $(BIN)/python -m pytest -m chaos tests/$$folder; done

bench: $(STAMP) ## ratios and baselines; JSON under out/bench
	mkdir -p out/bench
	set -e; for file in $(wildcard benchmarks/[a-z]*.py); do name=$$(basename $$file .py); \
	  $(BIN)/python -m benchmarks.$$name --json out/bench/$$name.json; done

EVALUATE = $(BIN)/editfarm evaluate --seed 1 --store out/quality/store
METHODS = --method learnable_regions --method style_diffusion --method edit_infinity
REGIONS = $(EVALUATE) --method learnable_regions --types shape,colour
INFINITY = $(EVALUATE) --method edit_infinity
DIFFUSION = $(EVALUATE) --method style_diffusion
UNPROMPTED = train_textembedding=0,use_textembedding=0,use_concat_embedding=0
HALF = $$(($(EDITS) / 2))
QUARTER = $$(($(EDITS) / 4))

quality: $(STAMP) ## all held-out figures into out/quality, some hours, and docs/quality.md from them
	mkdir -p out/quality
	$(EVALUATE) $(METHODS) --method auto --edits $(HALF) \
	  --pictures out/quality/pictures --json out/quality/all.json
	$(EVALUATE) $(METHODS) --baselines --edits $(QUARTER) --json out/quality/baselines.json
	$(DIFFUSION) --edits $(EDITS) --arm plain:learned=nothing --json out/quality/style_diffusion.json
	$(DIFFUSION) --edits $(HALF) --arm forced:training=forced --arm polish:training=forced_polish \
	  --arm direct:learned=direct --json out/quality/style_diffusion_training.json
	$(INFINITY) --edits $(EDITS) --arm one:candidates=1 \
	  --arm words-alone:structure_weight=0 --arm source-noise:source_noise=true \
	  --arm one-source-noise:candidates=1,source_noise=true \
	  --arm untrained-source-noise:source_noise=true,$(UNPROMPTED),train_lora=0,use_lora=0 \
	  --json out/quality/edit_infinity.json
	$(INFINITY) --types colour --edits $(EDITS) --arm one:candidates=1 \
	  --arm words-alone:structure_weight=0 --json out/quality/edit_infinity_colour.json
	$(INFINITY) --edits $(HALF) --arm prompt:train_lora=0,use_lora=0 --arm lora:$(UNPROMPTED) \
	  --arm none:$(UNPROMPTED),train_lora=0,use_lora=0 --arm ungrown:grow=0 \
	  --arm paper-kernel:kernel=paper,grow=0 --arm decoded:paste_back=false \
	  --arm reference:reference=true --json out/quality/edit_infinity_arms.json
	$(REGIONS) --edits $(EDITS) --json out/quality/learnable_regions.json
	$(REGIONS) --edits $(HALF) --arm untrained:sizes=untrained --arm random:sizes=random \
	  --arm argmin:sizes=argmin --json out/quality/learnable_regions_arms.json
	$(BIN)/python -m jobs.train_anchornet --edits 96 --steps 1000 --out out/anchornet
	$(REGIONS) --edits $(QUARTER) \
	  --arm amortised:anchornet=out/anchornet/anchornet.safetensors,train=false \
	  --arm exhaustive:sizes=all,finalists=100,draws=1 \
	  --arm 'reference:reference=true,template="{}",num_steps=20,guidance_scale=4' \
	  --json out/quality/learnable_regions_search.json
	$(BIN)/editfarm zoo pie --folder out/quality/pie-scenes --edits 60 --seed 1
	$(BIN)/editfarm evaluate --benchmark pie out/quality/pie-scenes --method style_diffusion \
	  --baselines --store out/quality/store --json out/quality/pie_scenes.json
	$(BIN)/python -m jobs.quality_page

zoo: $(STAMP) ## train and measure the scenes zoo, resuming from out/zoo; some hours
	set -e; for part in vae clip judge unet inpainting caption_vit bsq_vae bsq_decoder t5 infinity; do $(BIN)/editfarm zoo train $$part; done
	$(BIN)/editfarm zoo export
	$(BIN)/editfarm zoo eval --unrounded out/zoo --json out/zoo/eval.json

constraints: ## resolve pyproject.toml anew into constraints.txt
	rm -rf out/resolve && $(PYTHON) -m venv out/resolve
	out/resolve/bin/python -m pip install --quiet --upgrade pip setuptools
	out/resolve/bin/python -m pip install --quiet '.[dev]'
	{ sed '/^[^#]/,$$d' constraints.txt; \
	  out/resolve/bin/python -m pip freeze --all | grep -v -e '^pip==' -e '^editfarm'; } > out/constraints.txt
	mv out/constraints.txt constraints.txt

clean: ## remove the environment and caches, and keep out/
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
