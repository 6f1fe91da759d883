# make demo | make test: on a fresh clone with python3, pip and make, both install into .venv first.

PYTHON ?= python3
# Another package index for torch only, as a URL: the default index's build for Linux carries CUDA (gigabytes).
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := .venv-bench
PEERS_STAMP := $(PEERS)/.installed
PEERS_PIP := $(PEERS)/bin/pip install --quiet --no-compile --disable-pip-version-check -c benchmarks/constraints-peers.txt

.PHONY: demo test test-all browser check setup format screenshots bench bench-quick clean

setup: $(STAMP)

# torch first and alone: with another index named, nothing else may come from there. quanestimation, which one test shows
# to be wrong where we are right, asks for a package that fetches Julia and that the test does not need. pip would compile on one core,
# compileall takes all; what does not compile (another Python's templates) nobody imports. A third of all that is installed
# are others' tests and models that nobody asks transformers for.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v >= (3, 11) else f"qig-tui needs Python 3.11 or newer; this is {v[0]}.{v[1]} (make PYTHON=python3.12 ...)")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt --no-deps quanestimation
	-@$(BIN)/python -m compileall -qq -j 0 -x '/tests/|/transformers/models/(?!auto|bert|gpt2|llama)' $(VENV)/lib qig_core qig_tui
	touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/python -m qig_core.cli demo

# Four workers on two cores: a good part of the tests waits for a heartbeat, a frame or another process. Each begins with
# a share of neighbours, which use one fixture, and then takes from whoever has most left.
PYTEST := $(BIN)/python -m pytest -n 4 --dist worksteal
test: check browser
	$(PYTEST) -m 'not slow'

test-all: check browser
	$(PYTEST)

# tests/tui/test_serve.py drives a real browser. Root on a machine with apt gets one; anybody else is told.
browser:
	@for each in "$$CHROMIUM" chromium chromium-browser google-chrome-stable google-chrome chrome; do command -v "$$each" >/dev/null && exit 0; done; \
	echo "make test needs chromium: apt-get install --no-install-recommends chromium (or CHROMIUM=/path/to/one)"; \
	test "$$(id -u)" = 0 && command -v apt-get >/dev/null || exit 1; \
	echo "this is root on a machine with apt: installing it (113 MB to fetch, 414 MB on disk)"; \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium >/dev/null

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

screenshots: $(STAMP)
	$(BIN)/python screenshots/make.py

# All of them run, also after one that missed a mark.
bench: $(STAMP) $(PEERS_STAMP)
	@status=0; \
	for each in telemetry step_overhead safety checkpoints dashboard train_step measures; do $(BIN)/python benchmarks/$$each.py || status=1; done; \
	$(PEERS)/bin/python benchmarks/geometry.py || status=1; \
	exit $$status

bench-quick: $(PEERS_STAMP)
	$(PEERS)/bin/python benchmarks/geometry.py --quick

# We beside other libraries, in an environment of its own: they want an older numpy. Two of them ask for what is not used
# here (benchmarks/constraints-peers.txt says what), and where they cannot be had their rows say so.
$(PEERS_STAMP): pyproject.toml benchmarks/constraints-peers.txt
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS_PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(PEERS_PIP) -e '.[train,bench]'
	-$(PEERS_PIP) --no-deps toqito
	-$(PEERS_PIP) --no-deps quanestimation
	touch $(PEERS_STAMP)

clean:
	rm -rf $(VENV) $(PEERS) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
