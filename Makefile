# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0

# Two commands: `make quickstart` trains, evaluates and shows a model of your own; `make test` runs the tests.
# Both make their own virtual environment; PYTHON=python3.12 chooses the interpreter, VENV=... the folder.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN := runs/g2p-quickstart
CMUDICT := data/g2p
BIBLE := data/bible
DOCSTRINGS := data/docstrings
DESCRIPTIONS := data/descriptions
PRONASYL := data/pronasyl
MULTI30K := data/multi30k
# Of the recipes for published test sets: each is a training of hours.
SEEDS ?= 0
# Where scores of trainings are written: those that are there, as in benchmarks/results, are not made again.
RESULTS ?= runs
# A third less time on processors that compute in bfloat16; others are slower for it.
BF16 := $(shell grep -qsE 'avx512_bf16|amx_bf16' /proc/cpuinfo && echo --bf16 true)
export TOKENIZERS_PARALLELISM := false

.PHONY: help install install-test quickstart bible-data bible pretraining-data pretraining descriptions-data languages published reproduce-g2p reproduce-multi30k test test-distributed test-fast test-nightly test-slow test-versions test-wheel kills lint parity gpu-check mutants mutations docs clean

help:
	@sed -n 's/^\([a-z0-9-]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 28

# A failed venv leaves its interpreter behind.
.DELETE_ON_ERROR:

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("$(PYTHON) is Python %d.%d, and 3.11 is needed: PYTHON=python3.12" \
		% sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# Torch comes first, as the largest. A machine without a GPU saves gigabytes of CUDA by
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu.
$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing into $(VENV): some minutes"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,plot,tensorboard]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

$(VENV)/.installed-bible: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bible]'
	@touch $@

$(VENV)/.installed-raw: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt sacremoses
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

install: $(VENV)/.installed  ## the package and what training needs, into $(VENV)
install-test: $(VENV)/.installed-test

quickstart: install  ## train a 1M-parameter model to pronounce words, in under ten minutes on two cores
	$(BIN)/python scripts/prepare_cmudict.py --output_dir $(CMUDICT)
	$(BIN)/hf-xformer tokenizer --train_file $(CMUDICT)/train.jsonl --model_type symbol \
		--output_dir $(CMUDICT)/tokenizer --overwrite
	$(BIN)/accelerate launch --config_file configs/accelerate/cpu.yaml scripts/train.py \
		configs/train/g2p-quickstart.yaml --output_dir $(RUN) $(BF16)
	$(BIN)/hf-xformer evaluate $(RUN) --test_file $(CMUDICT)/test.jsonl --metrics per wrong_words \
		--output_file $(RUN)/test_results.json --predictions_file $(RUN)/test_predictions.jsonl --show 12
	$(BIN)/hf-xformer card $(RUN)
	@echo "checkpoint: $(RUN)    its card, with curves and scores: $(RUN)/README.md    hf-xformer info $(RUN)"

bible-data: $(VENV)/.installed-bible  ## verses and chapters of two English Bibles as pairs, from Debian's packages
	$(BIN)/python scripts/prepare_bible.py --output_dir $(BIBLE)/verses --verses 1 --numbers
	$(BIN)/python scripts/prepare_bible.py --output_dir $(BIBLE)/chapters --numbers
	$(BIN)/hf-xformer tokenizer --train_file $(BIBLE)/verses/train.jsonl --model_type bpe --vocab_size 4000 \
		--max_length 4096 --output_dir $(BIBLE)/tokenizer --overwrite

bible: bible-data  ## chapters of the Bible, and block against full attention on them, three seeds: hours on two cores
	$(BIN)/python benchmarks/long_text.py --whole --seeds 0 --results $(RESULTS) $(if $(BF16),--bf16)
	$(BIN)/python benchmarks/long_text.py --results $(RESULTS) $(if $(BF16),--bf16)

pretraining-data: install  ## plain text and a small labelled set, from the documentation strings of Python's libraries
	$(BIN)/python scripts/prepare_docstrings.py --output_dir $(DOCSTRINGS)
	$(BIN)/hf-xformer tokenizer --train_file $(DOCSTRINGS)/text.txt --one_column --vocab_size 4000 --sentinels 20 \
		--mask_token --output_dir $(DOCSTRINGS)/tokenizer --overwrite

pretraining: pretraining-data  ## pretraining and fine-tuning against training from scratch; an hour on two cores
	$(BIN)/python benchmarks/pretraining.py --results $(RESULTS)

descriptions-data: install  ## one-line descriptions of Debian's packages in English, German, French and Italian
	$(BIN)/python scripts/prepare_descriptions.py --output_dir $(DESCRIPTIONS)
	$(BIN)/hf-xformer tokenizer --train_file $(DESCRIPTIONS)/train-*.jsonl --model_type bpe --vocab_size 6000 \
		--added_tokens '<2de>' '<2fr>' '<2it>' --output_dir $(DESCRIPTIONS)/tokenizer --overwrite

languages: descriptions-data  ## one model of three languages against a model of each; an hour and more on two cores
	$(BIN)/python benchmarks/languages.py --results $(RESULTS) $(if $(BF16),--bf16)

# Recipes for the literature's data, which is not passed on here: DATA names the folder of the published files.
published:
	@test -n "$(DATA)" || { echo 'DATA=DIR names the folder of the published files; scripts/prepare_*.py --help says which'; exit 2; }

reproduce-g2p: published install  ## the pronunciation recipe on the literature's split, DATA=DIR: hours on two cores
	$(BIN)/python scripts/prepare_pronasyl.py --data $(DATA) --output_dir $(PRONASYL)
	$(BIN)/hf-xformer tokenizer --train_file $(PRONASYL)/train.jsonl --model_type symbol \
		--output_dir $(PRONASYL)/tokenizer --overwrite
	$(BIN)/python benchmarks/recipes.py g2p-pronasyl --seeds $(SEEDS) --results $(RESULTS) $(if $(BF16),--bf16)

reproduce-multi30k: published install $(if $(RAW),$(VENV)/.installed-raw)  ## the translation recipe on Multi30k, DATA=DIR: hours on two cores
	$(BIN)/python scripts/prepare_multi30k.py --data $(DATA) --output_dir $(MULTI30K)
	$(BIN)/hf-xformer tokenizer --train_file $(MULTI30K)/train.jsonl --merges $(MULTI30K)/code \
		--output_dir $(MULTI30K)/tokenizer --overwrite
	$(BIN)/python benchmarks/recipes.py multi30k-en-de --seeds $(SEEDS) --results $(RESULTS) $(if $(BF16),--bf16) \
		$(if $(RAW),--raw $(RAW))

PYTEST := $(BIN)/python -m pytest -q -n 2 --dist loadscope --no-loadscope-reorder

test: install-test  ## the tests of every push, installing what they need
	$(PYTEST) -m 'not nightly and not gpu'

test-fast: install-test  ## of them those of less than a second, under four minutes in all
	$(PYTEST)

test-slow: install-test  ## of them the rest: trainings, several processes, killed and resumed runs, compilation
	$(PYTEST) -m '(slow or distributed) and not nightly and not gpu'

test-distributed: install-test  ## two processes each: data parallel, ZeRO, tensor parallel, killed, two machines
	$(PYTEST) -m 'distributed and not nightly' tests/training

test-nightly: install-test  ## further modes, kinds and random examples, for the night
	HYPOTHESIS_PROFILE=nightly $(PYTEST) -m 'nightly and not gpu'
	HYPOTHESIS_PROFILE=nightly $(PYTEST) tests/test_files.py tests/test_errors.py tests/checkpoints/test_weight_files.py \
		tests/checkpoints/test_mutations.py
	$(BIN)/python benchmarks/gpu_check.py --device cpu --tiny

test-versions: install-test  ## the tests with older and newer transformers and torch; ARGS="--help" says more
	$(BIN)/python tests/versions.py $(ARGS)

test-wheel: install-test  ## the fast tests on the built wheel, in an environment of its own, without the source tree
	rm -rf build/wheel && mkdir -p build/wheel
	$(BIN)/python -m build --outdir build/wheel/dist
	tar xzf build/wheel/dist/*.tar.gz -C build/wheel
	mv build/wheel/hf_xformer-* build/wheel/tree && rm -r build/wheel/tree/hf_xformer
	$(PYTHON) -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip install --quiet -c constraints.txt torch
	build/wheel/venv/bin/python -m pip install --quiet -c constraints.txt "$$(ls build/wheel/dist/*.whl)[test]"
	cd build/wheel/tree && ../venv/bin/python -m pytest -q -n 2 --dist loadscope --no-loadscope-reorder

parity: install-test  ## logits, gradients and tokens of stock models against their conversions
	$(BIN)/python benchmarks/parity.py

gpu-check:  ## tests and benchmarks for one GPU in ten minutes; ARGS="--device cpu --tiny" rehearses on a CPU
	$(or $(PYTHON_GPU),$(wildcard $(BIN)/python),$(PYTHON)) benchmarks/gpu_check.py $(ARGS)

kills: install-test  ## kills trainings at 100 moments, starts them again and compares; ARGS="--help" says more
	$(BIN)/python tests/kills.py $(ARGS)

mutants: install-test  ## plants faults in a copy of the package and shows which test catches each: some minutes
	$(BIN)/python tests/mutants.py

mutations: install-test  ## loads checkpoints with 870 random faults in their files; ARGS="--examples 10" for more
	$(BIN)/python tests/run_mutations.py $(ARGS)

lint: install-test  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed-docs  ## the site under docs/, into site/index.html; a broken link or reference is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:  ## what the commands above made, but for the runs
	rm -rf $(VENV) .cache data build dist site
