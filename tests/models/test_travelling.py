# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A checkpoint's folder loads with this package and without it, and tomorrow's package loads today's."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from bare_environment import BareEnvironment
from make_fixture import FIXTURES
from safetensors.torch import load_file
from small_models import VARIANTS, make_batch, make_model
from small_runs import ROOT, python
from test_structure import TRAVELLING
from torch.testing import assert_close
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer

from hf_xformer import XformerConfig, XformerForSeq2SeqLM


CODE = {f"{name}.py" for name in TRAVELLING}
VISITED = ("sinusoidal-post", "relative-pre", "rope-pre-blocks")


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> BareEnvironment:
    return BareEnvironment(tmp_path_factory.mktemp("bare"), "torch", "transformers")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory, task) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in VISITED:
        make_model(**VARIANTS[name]).save_pretrained(folder / name)
        AutoTokenizer.from_pretrained(task.tokenizer).save_pretrained(folder / name)
    return folder


def decoded(model) -> list[list[int]]:
    batch = make_batch()
    return model.generate(batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=6).tolist()


# What a stranger does; the sources are those of `make_batch`.
VISIT = """
import json, sys
from pathlib import Path
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoModelForTextEncoding, AutoTokenizer

folder, batch = Path(sys.argv[1]), json.loads(sys.argv[2])
batch = {name: torch.tensor(rows) for name, rows in batch.items()}
for name in sys.argv[3:]:
    options = {"pretrained_model_name_or_path": folder / name, "trust_remote_code": True}
    classes = (AutoConfig, AutoModel, AutoModelForTextEncoding)
    classes = [type(auto.from_pretrained(**options)).__name__ for auto in classes]
    model = AutoModelForSeq2SeqLM.from_pretrained(**options)
    tokens = model.generate(**batch, max_new_tokens=6).tolist()
    ids = AutoTokenizer.from_pretrained(**options)("A B")["input_ids"]
    model.save_pretrained(folder / f"{name}-again")
    print(json.dumps({"classes": classes, "tokens": tokens, "ids": ids, "package": "hf_xformer" in sys.modules}))
"""


@pytest.mark.slow
def test_a_checkpoint_loads_decodes_and_saves_where_only_torch_and_transformers_are(bare, checkpoints):
    with pytest.raises(AssertionError, match="No module named 'hf_xformer'"):
        bare.run("import hf_xformer")
    with pytest.raises(AssertionError, match="No module named 'accelerate'"):
        bare.run("import accelerate")
    batch = {name: each.tolist() for name, each in make_batch().items() if name != "labels"}
    lines = bare.run(VISIT, checkpoints, json.dumps(batch), *VISITED).splitlines()
    for name, line in zip(VISITED, lines, strict=True):
        said = json.loads(line)
        model = make_model(**VARIANTS[name])
        assert said["tokens"] == decoded(model)
        assert said["classes"] == ["XformerConfig", "XformerModel", "XformerEncoderModel"]
        assert said["ids"] == AutoTokenizer.from_pretrained(checkpoints / name)("A B")["input_ids"]
        assert not said["package"]
        again = checkpoints / f"{name}-again"
        assert {path.name for path in again.glob("*.py")} == CODE
        assert json.loads((again / "config.json").read_text()) == json.loads(
            (checkpoints / name / "config.json").read_text()
        )
        assert decoded(AutoModelForSeq2SeqLM.from_pretrained(again)) == decoded(model)


BOTH = """
import json, sys
from transformers import AutoModelForSeq2SeqLM
folder = sys.argv[1]
remote = AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=True)
import hf_xformer
local = AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=True)
same = all((one == other).all() for one, other in zip(remote.parameters(), local.parameters(), strict=True))
import torch
tokens = torch.arange(4, 12)[None]
for model in (remote, local, remote):
    print(type(model).__module__, bool(same), model.generate(tokens, max_new_tokens=5).tolist())
"""


@pytest.mark.slow
def test_code_from_a_checkpoint_and_the_package_live_in_one_process(checkpoints):
    ran = python("-c", BOTH, checkpoints / VISITED[-1])
    assert ran.returncode == 0, ran.stderr
    first, second, third = (line.split(maxsplit=2) for line in ran.stdout.splitlines())
    assert first[0].startswith("transformers_modules.") and second[0] == "hf_xformer.models.modeling_xformer"
    assert first[1:] == second[1:] == third[1:] and second[1] == "True"


def test_a_checkpoint_names_its_own_code_wherever_its_config_came_from(tmp_path):
    config = XformerConfig(auto_map={"AutoConfig": "someone/else--configuration_xformer.XformerConfig"})
    config.save_pretrained(tmp_path)
    auto_map = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert set(auto_map) == {"AutoConfig", "AutoModel", "AutoModelForSeq2SeqLM", "AutoModelForTextEncoding"}
    for reference in auto_map.values():
        module, name = reference.split(".")
        assert f"{module}.py" in CODE and f"\nclass {name}(" in (source_of(module))


MINE = """
from hf_xformer import XformerForSeq2SeqLM

class MyModel(XformerForSeq2SeqLM):
    pass

MyModel.register_for_auto_class("AutoModelForSeq2SeqLM")
"""


def test_a_users_own_class_stays_in_the_auto_map(tmp_path, monkeypatch):
    (tmp_path / "modeling_mine.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    mine = importlib.import_module("modeling_mine").MyModel
    mine(make_model().config).save_pretrained(tmp_path / "saved")
    config = AutoConfig.from_pretrained(tmp_path / "saved")
    assert config.auto_map["AutoModelForSeq2SeqLM"] == "modeling_mine.MyModel"
    assert config.auto_map["AutoModel"] == "modeling_xformer.XformerModel"
    reference = "someone/else--modeling_mine.MyModel"
    assert XformerConfig(auto_map={"AutoModelForSeq2SeqLM": reference}).auto_map["AutoModelForSeq2SeqLM"] == reference


DIVIDED = """
import sys
import torch
from small_models import make_model
from torch.distributed import init_process_group
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

init_process_group("gloo", init_method=f"file://{sys.argv[1]}/meeting", rank=0, world_size=1)
model, mesh = make_model(), init_device_mesh("cpu", (1,))
for layer in (*model.model.encoder.layers, *model.model.decoder.layers, model):
    fully_shard(layer, mesh=mesh)
divided = type(model)
weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
model.save_pretrained(f"{sys.argv[1]}/saved", state_dict=weights)
assert type(model) is divided
"""


@pytest.mark.slow
def test_a_model_that_fsdp_divided_is_saved_as_a_whole_one_with_its_code(tmp_path):
    ran = python("-c", DIVIDED, tmp_path, PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}")
    assert ran.returncode == 0, ran.stderr
    assert {path.name for path in (tmp_path / "saved").glob("*.py")} == CODE
    # It is the folder of a whole model, which other tests load where the package is not.
    make_model().save_pretrained(tmp_path / "whole")
    folders = (tmp_path / "saved", tmp_path / "whole")
    there, expected = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
    assert there == expected


def source_of(module: str) -> str:
    return (Path(sys.modules["hf_xformer"].__file__).parent / "models" / f"{module}.py").read_text()


def test_no_travelling_file_needs_more_than_torch_and_transformers():
    for module in TRAVELLING:
        for line in source_of(module).splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]) and not words[1].startswith("."):
                assert words[1].split(".")[0] in {*sys.stdlib_module_names, "torch", "transformers", "huggingface_hub"}


@pytest.mark.parametrize("name", sorted(path.name for path in FIXTURES.iterdir()))
def test_todays_package_loads_what_an_earlier_one_wrote(name):
    """The folders of tests/fixtures stay as they were written; `make_fixture.py` wrote them."""
    expected = json.loads((FIXTURES / name / "expected.json").read_text())
    assert AutoConfig.from_pretrained(FIXTURES / name).format_version == expected["format_version"]
    model, info = AutoModelForSeq2SeqLM.from_pretrained(FIXTURES / name, output_loading_info=True)
    assert isinstance(model, XformerForSeq2SeqLM) and not any(info.values()), info
    assert set(load_file(FIXTURES / name / "model.safetensors")) == set(expected["keys"])
    tokenizer = AutoTokenizer.from_pretrained(FIXTURES / name)
    batch = tokenizer(expected["sources"], padding=True, return_tensors="pt")
    logits = model(**batch, decoder_input_ids=torch.tensor(expected["decoder_input_ids"])).logits
    assert_close(logits, torch.tensor(expected["logits"]), atol=1e-5, rtol=1e-4)
    texts = tokenizer.batch_decode(model.generate(**batch, max_new_tokens=6), skip_special_tokens=True)
    assert texts == expected["texts"]
