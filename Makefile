# make demo    the whole path in miniature, here and now
# make test    everything that must hold: style, types, tests
# Nothing is needed but Python 3.11 or newer with pip and venv. Another interpreter: make PYTHON=python3.12 demo

PYTHON ?= python3
# How many processes pytest runs in; each keeps to one thread.
WORKERS ?= 2

VENV := .venv
RUN := $(VENV)/bin/python
# The environment is up to date when it was made from these very files in this very place.
STAMP := $(VENV)/made-from-$(shell { cat requirements.lock pyproject.toml; pwd; } | cksum | cut -d ' ' -f 1)

.PHONY: demo test lint env clean

demo: env
	@$(VENV)/bin/llavakit demo --out runs/demo

test: lint
	@OMP_NUM_THREADS=1 $(RUN) -m pytest -q -n $(WORKERS)

lint: env
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy llavakit

env: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "llavakit needs Python 3.11 or newer; '$(PYTHON)' is not. Name one: make PYTHON=python3.12" >&2; exit 2; }
	@$(RUN) -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@rm -f $(VENV)/made-from-*
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info build dist
