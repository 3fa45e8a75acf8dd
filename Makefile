# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check examples clean

demo: .venv/.package
	$(BIN)/dff demo

test: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal \
		--cov=dff --cov=gradcam --cov-report=term:skip-covered

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

examples: .venv/.dev
	for example in examples/[0-9]*.py examples/vqa/explain.py; do echo "$$example"; $(BIN)/python "$$example" || exit 1; done

.venv/.package: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/.dev: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ .venv/.package

clean:
	rm -rf .venv build dist *.egg-info dff-demo dff-out
