# Two commands are all a new machine needs: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint clean

demo: $(READY)  ## draw the sample prompts with the zoo's parts and measure them
	@echo "drawing the sample prompts with S/S, M/M and L/L ..."
	@$(BIN)/python -m zoo.contact_sheet --diagonal --out demo.png
	@echo "measuring the main rows beside the model card's (about two minutes) ..."
	@$(BIN)/python -m zoo.evaluate --quick
	@echo "look at demo.png"

test: $(READY) lint  ## lint, types and tests
	@echo "running the tests ..."
	@$(BIN)/python -m pytest

lint: $(READY)
	@echo "checking style, types and who imports whom ..."
	@$(BIN)/ruff check -q .
	@$(BIN)/ruff format -q --check .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo > /dev/null || $(BIN)/lint-imports --no-logo

# torch first and alone: any other request for it would pull its CUDA packages.
$(READY): constraints.txt pyproject.toml
	@echo "setting up $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q -c constraints.txt torch numpy
	@$(BIN)/pip install -q -c constraints.txt -e '.[build,cpu,tensorrt,dev]'
	@touch $@

clean:
	rm -rf $(VENV)
