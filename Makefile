# A new machine needs only `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TOOLS := $(VENV)/.tools
# A Triton server for the tests, without dependencies: its client would need an older numpy.
TRITON := "nvidia-pytriton; sys_platform == 'linux' and platform_machine == 'x86_64'"

ON_ALL_CORES := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: demo test lint clean

demo: $(READY)  ## builds the best pipeline of the zoo for a 4 GB GPU, and generates an image with it
	@echo "building the best pipeline of the bundled zoo for a 4 GB GPU (minutes; the second time seconds) ..."
	@$(BIN)/sdpack build --profile 4gb-gpu --images 32
	@$(BIN)/sdpack run engines/4gb-gpu "noto, pizza" --runtime onnxruntime-cpu --out demo.png
	@echo "to see what a smaller budget costs, from the same cache:"
	@echo "  $(BIN)/sdpack build --profile 4gb-gpu --memory 24MiB --images 32 --out engines/small"
	@echo "  $(BIN)/sdpack compare engines/4gb-gpu engines/small --brief"

test: $(TOOLS) lint  ## lint, types and tests; SLOW=1 also runs the slow ones
	@echo "running the tests ..."
	@$(BIN)/python -m pytest $(if $(SLOW),,-m "not slow") $(ON_ALL_CORES)

lint: $(TOOLS)
	@echo "checking style, types and imports ..."
	@$(BIN)/ruff check -q .
	@$(BIN)/ruff format -q --check .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo > /dev/null || $(BIN)/lint-imports --no-logo

# torch is installed first and by itself; other packages would pull its CUDA dependencies.
$(READY): constraints.txt pyproject.toml
	@echo "setting up $(VENV), once (minutes) ..."
	@$(PYTHON) -m venv $(VENV)
	@echo "  1 of 2: installing PyTorch ..."
	@$(BIN)/pip install -q -c constraints.txt torch numpy
	@echo "  2 of 2: installing sdpack, the zoo and all packages for building and serving ..."
	@$(BIN)/pip install -q -c constraints.txt ./zoo -e '.[build,cpu,tensorrt-rtx,serve]'
	@touch $@

$(TOOLS): $(READY)
	@echo "installing the packages for the tests, once ..."
	@$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	@$(BIN)/pip install -q -c constraints.txt --no-deps $(TRITON)
	@touch $@

clean:
	rm -rf $(VENV)
