# make lint: ruff, clang-format, mypy and pyright; needs no network once .venv exists.
# make test: an environment of its own in .venv with oaks and everything it can use; `make lint`; the tests that take seconds,
#     on every core.
# make test-slow: the tests that take minutes (marker slow): every network that recipes can export, for every GPU that TensorRT
#     for RTX serves; kills, browsers, notebooks.
# make test-ray: the tests on a Ray cluster of this machine, one after another.
# make test-all: all three, the later ones also if an earlier one fails.
# make gpu: on a machine with an NVIDIA GPU, without a network, with the Python, torch and nvcc that are installed there:
#     tests, sanitizer, kernels and Engines within 9 minutes; results in benchmarks/results/gpu.
# make fuzz: feeds every reader of files with generated inputs for MINUTES (10), with SEED (0).
# make sanitize: the native operations under AddressSanitizer and UndefinedBehaviorSanitizer, MINUTES long.
# make kills: kills every verb that writes, KILLS (200) times in all, and compares the files that reruns give.
# make docs: the same environment, then the documentation in site/; the build itself needs no network, and a warning fails it.
# make demo: the same environment, then poses in the pictures of the package.
# make weights: trains the networks of a shipped bundle (SERIES: small or tiny; DATA: folder of the annotated photographs)
#     or of one from rendered people alone (SERIES=rendered), or the person detector (SERIES=detector THRESHOLD=minimum
#     score of a person); resumes what was stopped; the bundle is runs/$(SERIES)_bundle, of rendered people
#     runs/rendered_network.
# make scorer: the last steps of make weights alone, for a pose network that is trained (NETWORK=FILE): exports it and fits its
#     scorer to the people whom SERIES (small or tiny) holds out, and to its training people; the bundle is BUNDLE (a new folder),
#     as in make weights.
# make coverage: the tests, and which lines of the package they run.
# make wheels: wheels for every supported Python in dist/, by cibuildwheel, which needs Docker on Linux.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# A worker per core, each with one thread per library, so that workers do not compete. A file's tests stay with one worker,
# because they share what is expensive to make.
PYTEST := OAKS_REQUIRE_TENSORRT=1 $(RUN) -m pytest
PARALLEL := OMP_NUM_THREADS=1 $(PYTEST) --numprocesses logical --maxprocesses 8
SERIES ?= small
DATA ?= .
CROPS ?= rendered
BUNDLE ?= runs/$(SERIES)_bundle
MINUTES ?= 10
SEED ?= 0
KILLS ?= 200
EXPORT := --out runs/$(SERIES)_network --name $(SERIES) --precision fp16 --crops $(CROPS)
ifneq ($(filter small tiny,$(SERIES)),)
EXPORT := --out $(BUNDLE).network --name $(SERIES) --precision fp16 --crops $(CROPS) --detector detector
else ifeq ($(SERIES),detector)
EXPORT := --out runs/detector_bundle --name detector --images $(DATA)/coco-val2017/train --threshold $(THRESHOLD)
endif

.PHONY: install docs test test-slow test-ray test-all fuzz sanitize kills coverage wheels demo weights scorer lint benchmark gpu clean

$(VENV)/installed: pyproject.toml setup.py CMakeLists.txt tests/constraints.txt $(shell find csrc cmake -type f)
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet --constraint tests/constraints.txt torch numpy
	$(RUN) -m pip install --constraint tests/constraints.txt --editable ".[test]"
	touch $@

install: $(VENV)/installed

test: install lint
	$(VENV)/bin/oaks doctor
	$(PARALLEL) --dist loadfile

test-slow: install
	$(PARALLEL) --dist worksteal -m "slow and not ray"

test-ray: install
	$(PYTEST) -m ray

test-all:
	$(MAKE) --keep-going test test-slow test-ray

coverage: install
	OAKS_REQUIRE_TENSORRT=1 $(RUN) -m coverage run -m pytest
	$(RUN) -m coverage combine
	$(RUN) -m coverage report

wheels:
	$(PYTHON) -m pip install --quiet "cibuildwheel>=2.23"
	$(PYTHON) -m cibuildwheel --output-dir dist

fuzz: install
	cd tests && ../$(RUN) -m fuzz.run --seconds $$((60 * $(MINUTES))) --seed $(SEED)

sanitize: install
	cd tests && ../$(RUN) -m fuzz.sanitized --seconds $$((60 * $(MINUTES))) --seed $(SEED)

kills: install
	cd tests && ../$(RUN) -m durability.kills --kills $(KILLS) --seed $(SEED)

docs: install
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

demo: install
	$(VENV)/bin/oaks demo

ifneq ($(filter small tiny,$(SERIES)),)
weights: install
	network=$$($(VENV)/bin/oaks train-series $(SERIES) --data $(DATA)) && $(MAKE) scorer NETWORK=$$network
else
weights: install
	networks=$$($(VENV)/bin/oaks train-series $(SERIES) --data $(DATA)) && \
	$(VENV)/bin/oaks export $$networks $(EXPORT)
endif

scorer: install
	$(VENV)/bin/oaks export $(NETWORK) $(EXPORT)
	people=$$($(RUN) -m oaks.training.data.held_out $(SERIES)_pose --data $(DATA) --out runs/$(SERIES)_held_out --trained) && \
	$(VENV)/bin/oaks fit $(BUNDLE).network $$people --out $(BUNDLE)

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	find csrc tests -name '*.h' -o -name '*.cpp' -o -name '*.cu' | xargs $(VENV)/bin/clang-format --dry-run --Werror
	$(VENV)/bin/mypy
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(VENV)/bin/pyright --project pyproject.toml --pythonpath $(RUN)

gpu:
	$(PYTHON) benchmarks/gpu.py

benchmark: install
	$(RUN) benchmarks/operations.py

clean:
	rm -rf $(VENV) build dist *.egg-info
