# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# A faster disk cache or another torch: make TORCH="torch==2.11.0" demo
CONSTRAINTS ?= constraints.txt

.PHONY: demo test check test-slow fuzz faults gpu mutants evidence fix docs site notebook record \
	accessibility dist-check clean

$(BIN)/.installed: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "curate needs Python 3.11 or newer; name one: make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e .
	touch $@

$(BIN)/.installed-dev: $(BIN)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[dev]'
	touch $@

demo: $(BIN)/.installed ## the whole job on the embedded example, at most 6 minutes on 2 cores
	$(BIN)/curate demo

test: $(BIN)/.installed-dev ## lint, types, layers, docs and tests, at most 8 minutes on 2 cores
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov=curate --cov-report=term:skip-covered

check: test

test-slow: $(BIN)/.installed-dev
	$(BIN)/python -m pytest -m slow

fuzz: $(BIN)/.installed-dev ## 10,000 damaged files and fourteen bombs through the reader
	$(BIN)/python -m tests.fuzz --cases 10000
	$(BIN)/python -m pytest -q --no-cov -m slow tests/test_fuzz.py

faults: $(BIN)/.installed-dev ## kills, refusing disks, flipped bits, … over all commands; SHARE=0.1 of the counts
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults --share $(or $(SHARE),1)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults --share $(or $(SHARE),1) --grouped kill

gpu: $(BIN)/.installed-dev ## every figure that needs a GPU, on those of this machine: build/gpu.jsonl
	$(BIN)/python benchmarks/on_gpu.py --out build/gpu.jsonl

evidence: $(BIN)/.installed ## every measure against trained models: an hour of one core; DATA=folder
	$(BIN)/python benchmarks/alignment_vs_loss.py --data $(DATA) --out evidence --json

mutants: $(BIN)/.installed-dev ## change publish, reader and budget in 40 places each: do tests see it?
	$(BIN)/python -m tests.mutants --count 40

fix: $(BIN)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

notebook: $(BIN)/.installed-dev ## run the notebooks of examples/ again
	cd examples && ../$(BIN)/python make_notebook.py

docs: $(BIN)/.installed ## write the generated pages: help of the commands, api.md
	$(BIN)/python docs/generate.py

site: $(BIN)/.installed ## the documentation as a site, in build/site
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	$(BIN)/python -m mkdocs build --strict --site-dir build/site

record: $(BIN)/.installed ## run the demo and write what it printed into the README, with the figures
	$(BIN)/python examples/record.py

accessibility: $(BIN)/.installed-dev ## the report under axe-core in Chromium; needs npm
	npm install --silent --no-save --prefix build/axe axe-core@4
	$(BIN)/python -m pytest -q --no-cov tests/test_report_layout.py

dist-check: $(BIN)/.installed-dev ## build sdist and wheel, install both and each extra alone
	$(BIN)/python -m pytest -q --no-cov -m slow tests/test_dist.py

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .coverage
