PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check docs clean

demo: .venv/demo
	$(BIN)/medvlm-probe embed-dist --label cardiomegaly

test: .venv/dev
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest -n auto --dist worksteal

check: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: .venv/docs
	$(BIN)/pdoc --docformat google --output-directory site medvlm_probe

.venv/demo: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable .
	touch .venv/demo

.venv/dev: .venv/demo
	$(BIN)/pip install --quiet --editable '.[dev,dicom]'
	touch .venv/dev

.venv/docs: .venv/demo
	$(BIN)/pip install --quiet --editable '.[docs]'
	touch .venv/docs

clean:
	rm -rf .venv runs build dist site
