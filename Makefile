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

demo: $(READY)  ## builds two bundles of the zoo, for a 4 GB GPU and for 24 MiB, and generates an image
	@echo "building the best pipeline of the bundled zoo for a 4 GB GPU (minutes; the second time seconds) ..."
	@$(BIN)/sdpack build --profile 4gb-gpu --images 64
	@echo "building it for 24 MiB, where not all mixes fit, from the same cache ..."
	@$(BIN)/sdpack build --profile 4gb-gpu --memory 24MiB --images 64 --out engines/4gb-gpu-24mib
	@echo "effect of the budget of 24 MiB on the choice and the quality:"
	@$(BIN)/sdpack compare engines/4gb-gpu engines/4gb-gpu-24mib --brief
	@$(BIN)/sdpack run engines/4gb-gpu "noto, pizza" --runtime onnxruntime-cpu --out demo.png

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
