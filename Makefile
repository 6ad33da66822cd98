# make test: an environment of its own in .venv, oaks and everything it can use, all tests.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: install test lint benchmark clean

$(VENV)/installed: pyproject.toml setup.py CMakeLists.txt tests/constraints.txt $(shell find csrc cmake -type f)
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet --constraint tests/constraints.txt torch numpy
	$(RUN) -m pip install --constraint tests/constraints.txt --editable ".[test]"
	touch $@

install: $(VENV)/installed

test: install lint
	$(VENV)/bin/oaks doctor
	$(RUN) -m pytest

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	find csrc tests -name '*.h' -o -name '*.cpp' -o -name '*.cu' | xargs $(VENV)/bin/clang-format --dry-run --Werror

benchmark: install
	$(RUN) benchmarks/operations.py

clean:
	rm -rf $(VENV) build dist *.egg-info
