# make demo   sets up what is missing, then evaluates the demo model
# make test   sets up what is missing, then runs the tests
# make test-slow     those that take longest: faults, hostile answers, simulations
# make test-units    those that start no process, with PYTHON: other versions of it;
#             without what a version cannot change (marked as once)
# make test-lowest   the same, with the lowest versions that pyproject.toml takes
# make test-addons   those that build the sandbox's add-ons (ten minutes, 4 GB)
# make test-swift    those that start real model servers (once 2 GB, then five minutes)
# make model-environment   sets up what these need, in the user's cache
# make test-ray      those that start clusters of Ray (once 270 MB beside .venv)
# make test-postgres   those that start a PostgreSQL server
# make test-browser  those that open reports in Chromium, which has to be installed
# make test-packaging   those that install the wheel, with each Python that is found
# make docs   builds the site of the documentation, build/docs/docs/index.html
# make screenshot   takes the pictures of the gallery and the README, with Chromium
# PYTHON      the interpreter to set up with, 3.11 or newer
# PYTEST_ARGS further arguments for pytest

PYTHON ?= python3
PYTEST_ARGS ?=
BIN := .venv/bin
READY := .venv/.ready
# Those that need nothing but what `make` sets up.
PLAIN := not addons and not swift and not ray and not postgres and not browser \
	and not packaging
TRAINING := .cache/demo-model
TRAINING_READY := $(TRAINING)/.ready
SPHINX := .cache/docs
UNITS ?= .cache/units
LOWEST := .cache/lowest
SPHINX_READY := $(SPHINX)/.ready
# Ray, with all of .venv below it, which so stays as small as it is.
RAY := .cache/ray
RAY_READY := $(RAY)/.ready

# Each command would compile all it imports again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-slow test-addons test-browser test-swift test-ray test-postgres \
	test-packaging test-units test-lowest model-environment docs screenshot lint typecheck demo-model clean

demo: $(READY)
	$(BIN)/pytest --vlm-model=demo benchmarks/test_demo.py $(PYTEST_ARGS)

test: $(READY)
	$(BIN)/pytest -n 2 -m "not slow and $(PLAIN)" $(PYTEST_ARGS)

test-slow: $(READY)
	$(BIN)/pytest -n 2 -m "slow and $(PLAIN)" $(PYTEST_ARGS)

test-addons: $(READY)
	$(BIN)/pytest -n 2 -m addons $(PYTEST_ARGS)

model-environment: $(READY)
	$(BIN)/python -m tests.support.model_environment

test-swift: model-environment
	$(BIN)/pytest -m swift tests/sessions tests/test_readme.py $(PYTEST_ARGS)

test-ray: $(RAY_READY) model-environment
	$(RAY)/bin/python -m pytest -m ray tests/sessions $(PYTEST_ARGS)

test-postgres: $(READY)
	$(BIN)/pytest -m postgres $(PYTEST_ARGS)

test-browser: $(READY)
	@command -v chromium >/dev/null || { \
		echo "Chromium is not installed: apt-get install chromium" >&2; exit 1; }
	$(BIN)/pytest -m browser tests/reports $(PYTEST_ARGS)

test-packaging: $(READY)
	$(BIN)/pytest -m packaging -rs tests/test_packaging.py $(PYTEST_ARGS)

test-units: $(UNITS)/.ready
	$(UNITS)/bin/pytest -n 2 --units -m "not slow and not once and $(PLAIN)" $(PYTEST_ARGS)

test-lowest: $(LOWEST)/.ready
	$(LOWEST)/bin/pytest -n 2 --units -m "not slow and not once and $(PLAIN)" $(PYTEST_ARGS)

# Every warning is an error: a link that leads nowhere, a page that nothing leads to.
docs: $(SPHINX_READY)
	$(SPHINX)/bin/sphinx-build --fail-on-warning --keep-going --quiet --fresh-env \
		-c docs . build/docs

screenshot: $(READY)
	$(BIN)/python docs/screenshot.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(READY)
	$(BIN)/mypy

# Draws the demo data, trains the demo model and writes it to build/demo-model, in an
# environment of its own (torch, 1.3 GB).
demo-model: $(TRAINING_READY)
	$(TRAINING)/bin/python -m demo_model build/demo-model

clean:
	rm -rf .venv .cache build dist .mypy_cache .pytest_cache .ruff_cache

# $(call set_up,FOLDER,ARGUMENTS): an environment in FOLDER, made anew, in which
# `pip install ARGUMENTS` was run.
define set_up
@command -v "$(PYTHON)" >/dev/null || { \
	echo "There is no '$(PYTHON)' here. Python 3.11 or newer is needed:" \
		"install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	echo "'$(PYTHON)' is $$("$(PYTHON)" --version 2>&1). Python 3.11 or newer is" \
		"needed: install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
@set -e; start=$$(date +%s); rm -rf $(1); \
python=$$("$(PYTHON)" -c 'import sys; print(sys.executable)'); \
if command -v uv >/dev/null; then \
	echo "Setting up $(1) with uv, once: about a minute"; \
	uv venv --quiet --python "$$python" $(1); \
	uv pip install --quiet --compile-bytecode --python $(1)/bin/python $(2); \
else \
	echo "Setting up $(1) with pip, once: about a minute"; \
	"$$python" -m venv $(1); \
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check $(2); \
fi; \
touch $(1)/.ready; \
echo "Set up $(1) in $$(($$(date +%s) - start)) s"
endef

$(READY): pyproject.toml constraints.txt Makefile
	$(call set_up,.venv,--constraint constraints.txt --editable '.[dev]')

$(UNITS)/.ready: pyproject.toml constraints.txt Makefile
	$(call set_up,$(UNITS),--constraint constraints.txt --editable '.[dev]')

# pip has no such resolution; uv is among what .venv has.
$(LOWEST)/.ready: pyproject.toml Makefile $(READY)
	rm -rf $(LOWEST)
	$(BIN)/uv venv --quiet --python $(BIN)/python $(LOWEST)
	$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python \
		--resolution lowest-direct --editable '.[dev]'
	touch $@

$(SPHINX_READY): docs/requirements.txt Makefile
	$(call set_up,$(SPHINX),--requirement docs/requirements.txt)

$(TRAINING_READY): demo_model/requirements.txt Makefile
	$(call set_up,$(TRAINING),--requirement demo_model/requirements.txt --editable .)

# The path at which an environment has its packages.
packages = $$($(1)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

$(RAY_READY): $(READY)
	rm -rf $(RAY)
	$(BIN)/python -m venv $(RAY)
	echo "import site; site.addsitedir('$(call packages,.venv)')" \
		> "$(call packages,$(RAY))/venv.pth"
	$(RAY)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[ray]'
	touch $@
