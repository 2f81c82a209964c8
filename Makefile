# make demo   a photo in two styles, from nothing but Python >= 3.10, make and the package registry
# make test   lint, types and tests
# Every target can be repeated; the environment is made once, in .venv.

PYTHON ?= python3
VENV ?= .venv
# Any recent pair works. These versions are for .venv only; nothing is installed into ComfyUI's environment.
TORCH ?= torch==2.14.1 torchvision==0.29.1
DEMO := build/demo
BIN := $(VENV)/bin

.PHONY: demo test lint format clean

demo: $(VENV)/.ready
	mkdir -p $(DEMO)
	$(BIN)/stylerdalle stylize docs/demo/photo.jpg --style "a Van Gogh style oil painting" --output $(DEMO)/van-gogh.png --overwrite
	$(BIN)/stylerdalle stylize docs/demo/photo.jpg --style "a ukiyo-e print" --output $(DEMO)/ukiyo-e.png --overwrite
	$(BIN)/python -m stylerdalle.images.sheet $(DEMO)/sheet.jpg docs/demo/photo.jpg $(DEMO)/van-gogh.png $(DEMO)/ukiyo-e.png \
		--labels "the photo" "a Van Gogh style oil painting" "a ukiyo-e print"
	@echo "The pictures are in $(CURDIR)/$(DEMO): van-gogh.png, ukiyo-e.png, and side by side with the photo sheet.jpg"

test: lint
	$(BIN)/python -m pytest

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed, %s is %d.%d: make PYTHON=python3.11 ..." % ((sys.executable,) + sys.version_info[:2]) if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache
