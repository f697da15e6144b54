# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Where nothing but the package's own requirements is installed it decodes, converts, inspects and publishes."""

import json
import shutil
import tomllib

import pytest
from bare_environment import BareEnvironment
from packaging.requirements import Requirement
from small_models import make_model
from small_runs import ROOT
from transformers import AutoTokenizer, BartConfig, BartForConditionalGeneration


pytestmark = pytest.mark.slow  # every command is a process of its own, which imports the libraries

COMMAND = "import sys; from hf_xformer.cli import main; sys.exit(main())"


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    lines = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    folder = tmp_path_factory.mktemp("bare")
    environment = BareEnvironment(folder, *(Requirement(line).name for line in lines))
    (environment.site / "hf_xformer").symlink_to(ROOT / "hf_xformer")
    return environment


@pytest.fixture(scope="module")
def checkpoint(task, bare):
    folder = bare.folder / "checkpoint"
    tokenizer = AutoTokenizer.from_pretrained(task.tokenizer)
    for saved in (make_model(vocab_size=len(tokenizer)), tokenizer):
        saved.save_pretrained(folder)
    sizes = dict.fromkeys(("d_model", "encoder_ffn_dim", "decoder_ffn_dim"), 16)
    sizes |= dict.fromkeys(("encoder_layers", "decoder_layers"), 1)
    sizes |= dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2)
    config = BartConfig(vocab_size=len(tokenizer), pad_token_id=0, eos_token_id=1, **sizes)
    for saved in (BartForConditionalGeneration(config), tokenizer):
        saved.save_pretrained(bare.folder / "bart")
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n\nIt.\n")
    shutil.copytree(folder, bare.folder / "same")
    (bare.folder / "in.txt").write_text("A B\nC\n")
    return folder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["generate", "checkpoint", "--input", "in.txt", "--max_new_tokens", "4"], None),
        (["generate", "checkpoint", "--input", "in.txt", "--max_new_tokens", "4", "--num_beams", "2"], None),
        (["generate", "checkpoint", "--input", "in.txt", "--max_new_tokens", "4", "--do_sample"], None),
        (["info", "checkpoint"], "parameters"),
        (["convert", "bart", "converted"], "converted"),
        (["average", "checkpoint", "same", "--output_dir", "mean"], "mean: the average of 2 checkpoints"),
        (["push", "checkpoint", "you/it", "--dry_run"], "model.safetensors"),
        # Verbs and options that need an extra say so in a line.
        (
            ["generate", "checkpoint", "--input", "in.txt", "--mbr", "--num_beams", "2"],
            "what was asked for needs sacrebleu: ",
        ),
        (["evaluate", "checkpoint", "--test_file", "in.txt", "--metrics", "per"], "hf-xformer evaluate needs "),
        (["train", "recipe.yaml"], "hf-xformer train needs "),
        (["demo", "checkpoint"], "hf-xformer demo needs gradio: pip install 'hf-xformer[demo]'"),
    ],
    ids=lambda value: " ".join(value[:1] + value[-2:]) if isinstance(value, list) else "",
)
def test_every_verb_runs_or_says_which_extra_it_needs(words, said, bare, checkpoint):
    done = bare.finish(COMMAND, *words)
    assert "Traceback" not in done.stderr
    if said is None:
        assert done.returncode == 0 and len(done.stdout.splitlines()) == 2
    elif " needs " in said:
        assert done.returncode == 2 and said in done.stderr
        assert done.stderr.count("\n") == 1 and "pip install 'hf-xformer[" in done.stderr
    else:
        assert done.returncode == 0 and said in done.stdout, done.stderr


def test_the_libraries_of_the_extras_are_really_not_there(bare):
    names = ["datasets", "pyarrow", "sacrebleu", "rapidfuzz", "gradio"]
    found = bare.run(f"from importlib.util import find_spec; print([find_spec(name) is None for name in {names}])")
    assert json.loads(found.lower()) == [True] * len(names)
