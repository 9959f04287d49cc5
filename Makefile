# Two commands are all a new machine needs: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# A Triton server for the tests. Its wheel has a client besides, which alone wants an older numpy.
TRITON := "nvidia-pytriton; sys_platform == 'linux' and platform_machine == 'x86_64'"

.PHONY: demo test lint clean

demo: $(READY)  ## the main job on the bundled zoo: pipelines for a 4 GB GPU and for 24 MiB, and a picture
	@echo "building the best pipeline of the bundled zoo for a 4 GB GPU (minutes; the second time seconds) ..."
	@$(BIN)/sdpack build --profile 4gb-gpu --images 64
	@echo "building it for 24 MiB, where not everything fits, from the same cache ..."
	@$(BIN)/sdpack build --profile 4gb-gpu --memory 24MiB --images 64 --out engines/4gb-gpu-24mib
	@echo "what a budget of 24 MiB changes, and what it costs:"
	@$(BIN)/sdpack compare engines/4gb-gpu engines/4gb-gpu-24mib --brief
	@$(BIN)/sdpack run engines/4gb-gpu "noto, pizza" --runtime onnxruntime-cpu --out demo.png

test: $(READY) lint  ## lint, types and tests
	@echo "running the tests ..."
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: $(READY)
	@echo "checking style, types and who imports whom ..."
	@$(BIN)/ruff check -q .
	@$(BIN)/ruff format -q --check .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo > /dev/null || $(BIN)/lint-imports --no-logo

# torch first and alone: any other request for it would pull its CUDA packages.
$(READY): constraints.txt pyproject.toml
	@echo "setting up $(VENV), once (minutes) ..."
	@$(PYTHON) -m venv $(VENV)
	@echo "  1 of 3: installing PyTorch ..."
	@$(BIN)/pip install -q -c constraints.txt torch numpy
	@echo "  2 of 3: installing sdpack and what it builds, draws, serves and is tested with ..."
	@$(BIN)/pip install -q -c constraints.txt ./zoo -e '.[build,cpu,tensorrt-rtx,serve,dev]'
	@echo "  3 of 3: installing a Triton server for the tests ..."
	@$(BIN)/pip install -q -c constraints.txt --no-deps $(TRITON)
	@touch $@

clean:
	rm -rf $(VENV)
