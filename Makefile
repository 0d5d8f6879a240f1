# Every target sets up what it needs: a virtual environment in .venv with lbmux in it and, as root on Debian or Ubuntu,
# the packages in .ci/packages. Later runs find both ready.

PYTHON ?= python3
VENV := .venv/bin

# A change of the requirements, the interpreter or the tree's path rebuilds the environment.
READY := .venv/.ready-$(shell { cat setup.cfg pyproject.toml; $(PYTHON) --version; pwd; } | sha256sum | cut -c1-16)

.PHONY: demo test check warm fast fast-1 fast-2 fast-3 bench setup packages clean

demo: setup
	@$(VENV)/lbmux lab demo

# Three at a time on two cores, since most of their time tests wait; but by themselves those that measure times or load
# the whole machine.
ALONE := tests/lab/test_bgp_times.py tests/lab/test_frr_times.py tests/lab/test_scoreboard_stalls.py tests/lab/test_scoreboard_losses.py \
    tests/lab/test_scoreboard_floods.py

test: setup
	@$(MAKE) --no-print-directory -j 2 check warm
	@$(VENV)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder $(ALONE:%=--ignore=%)
	@$(VENV)/python -m pytest -q $(ALONE)

warm: setup
	@$(VENV)/python -m tests.warm_cache

check: setup
	@$(VENV)/ruff format --check --quiet .
	@$(VENV)/ruff check .
	@$(VENV)/mypy
	@$(VENV)/lint-imports

# Three parts of equal CPU time, each of which imports and collects its own files only.  On two cores one runs while
# another waits.
QUICK := -q -m "not root and not slow"
PART_1 := tests/lab tests/manager tests/tools
PART_2 := tests/datapath tests/frames tests/slowpath tests/tables

fast: setup
	@$(MAKE) --no-print-directory -j 3 --output-sync=target fast-1 fast-2 fast-3

fast-1:
	@$(VENV)/python -m pytest $(QUICK) $(PART_1)

fast-2:
	@$(VENV)/python -m pytest $(QUICK) $(PART_2)

fast-3:
	@$(VENV)/python -m pytest $(QUICK) $(PART_1:%=--ignore=%) $(PART_2:%=--ignore=%)

bench: setup
	@$(VENV)/python -m bench

setup: $(READY)

$(READY): | packages
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "lbmux needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo "$(PYTHON) cannot make virtual environments: install the package python3-venv" >&2; exit 1; }
	@echo "Setting up .venv (once)"
	@$(PYTHON) -m venv --clear .venv
	@$(VENV)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

packages:
	@command -v apt-get >/dev/null && command -v dpkg-query >/dev/null || exit 0; \
	missing=$$(for package in $$(sed 's/#.*//' .ci/packages); do \
	    dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q '^install ok installed$$' || echo $$package; \
	done); \
	[ -n "$$missing" ] || exit 0; \
	if [ "$$(id -u)" = 0 ]; then \
	    echo "Installing" $$missing; \
	    export DEBIAN_FRONTEND=noninteractive; \
	    apt-get -qq update && apt-get -qq install --no-install-recommends $$missing >/dev/null; \
	else \
	    echo "Not installed (the lab and its tests need root and these):" $$missing >&2; \
	fi

clean:
	rm -rf .venv build *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
