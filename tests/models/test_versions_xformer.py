# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""What differs among versions of the libraries, and what is said of others."""

import importlib.util
import inspect
import re
import sys
import tomllib

import pytest
import round_trip
import torch
import transformers
from packaging.requirements import Requirement
from small_models import VARIANTS, gradients, make_batch, make_model
from small_runs import ROOT
from torch.testing import assert_close
from transformers import DynamicCache, EncoderDecoderCache

from hf_xformer.models import versions_xformer
from hf_xformer.models.versions_xformer import CACHE, TESTED, minor, slice_logits_to_keep, untested


NAMES = ("cache", "past_key_values")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("part", ["language model", "model", "decoder"])
def test_the_cache_is_taken_by_either_name(part, name):
    model, batch = make_model(), make_batch()
    target = batch.pop("labels").clamp(min=0)
    memory = model.get_encoder()(**batch)
    source, ids = {"encoder_outputs": memory, "attention_mask": batch["attention_mask"]}, "decoder_input_ids"
    if part == "decoder":
        source = {"encoder_hidden_states": memory[0], "encoder_attention_mask": batch["attention_mask"]}
        ids = "input_ids"
    called = {"language model": model, "model": model.model, "decoder": model.get_decoder()}[part]
    whole = called(**source, **{ids: target}, use_cache=False)[0]
    begun = called(**source, **{ids: target[:, :3]})
    ended = called(**source, **{ids: target[:, 3:], name: begun[CACHE]})
    assert ended[CACHE].get_seq_length() == target.shape[1]
    assert_close(ended[0], whole[:, 3:], atol=1e-5, rtol=1e-5)


def test_a_signature_has_the_librarys_name_only():
    model = make_model()
    for each in (model, model.model, model.get_decoder(), model.get_decoder().layers[0]):
        assert [name for name in inspect.signature(each.forward).parameters if name in NAMES] == [CACHE]


def test_a_checkpointed_layer_gets_no_cache():
    """It would write to it a second time when the backward pass repeats it."""
    plain, checkpointed = (make_model(dropout=0.0).train() for _ in range(2))
    checkpointed.gradient_checkpointing_enable()
    cache = EncoderDecoderCache(DynamicCache(config=plain.config), DynamicCache())
    plain(**make_batch()).loss.backward()
    checkpointed(**make_batch(), **{CACHE: cache}).loss.backward()
    assert cache.get_seq_length() == 0
    assert_close(gradients(checkpointed), gradients(plain), atol=1e-6, rtol=1e-4)


def test_a_model_in_training_mode_generates_with_a_cache_though_its_layers_are_checkpointed():
    model, batch = make_model(dropout=0.0), make_batch()
    options = {"max_new_tokens": 12, "eos_token_id": None, "no_repeat_ngram_size": 1, "output_logits": True}
    options |= {"attention_mask": batch["attention_mask"], "return_dict_in_generate": True}
    expected = model.generate(batch["input_ids"], **options)
    model.train().gradient_checkpointing_enable()
    found = model.generate(batch["input_ids"], **options)
    assert torch.equal(found.sequences, expected.sequences) and found[CACHE].get_seq_length() == 12
    assert_close(found.logits, expected.logits, atol=1e-5, rtol=1e-5)


def test_positions_to_keep_are_the_last_ones_or_those_in_a_tensor():
    x = torch.randn(2, 7, 3)
    assert torch.equal(slice_logits_to_keep(x, 0), x)
    assert torch.equal(slice_logits_to_keep(x, 2), x[:, 5:])
    assert torch.equal(slice_logits_to_keep(x, torch.tensor([1, 4])), x[:, [1, 4]])


def test_the_tested_versions_are_those_that_are_required_and_pinned():
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    for name, (oldest, newest) in TESTED.items():
        specifier = next(each.specifier for each in map(Requirement, required) if each.name == name)
        assert f">={oldest}" in map(str, specifier)
        assert minor(oldest) < minor(newest) and minor(pinned[name]) <= minor(newest)


def test_every_version_between_the_oldest_and_the_newest_is_tested():
    for name, (oldest, newest) in TESTED.items():
        inside = {other: limits[0] for other, limits in TESTED.items()}
        for number in (f"{oldest}.0", f"{newest}.9", f"{newest}.0+cpu", f"{newest}.0.dev1"):
            assert untested({**inside, name: number}) == ""
        major, last = minor(newest)
        for number in (f"{major}.{last + 1}.0", f"{major + 1}.0.0", f"{major}.{minor(oldest)[1] - 1}.9"):
            line = untested({**inside, name: number})
            assert f"tested with {name} {oldest} to {newest}, not with {name} {number}" in line
            assert f"pip install '{name}=={newest}.*'" in line and "\n" not in line


def test_a_model_warns_once_of_a_version_that_nobody_has_tested_and_works(monkeypatch, caplog):
    monkeypatch.setattr(transformers, "__version__", TESTED["transformers"][1])
    monkeypatch.setattr(torch, "__version__", TESTED["torch"][1])
    make_model()
    assert caplog.records == []
    monkeypatch.setattr(transformers, "__version__", "5.99.0")
    for _ in range(2):
        make_model()(**make_batch()).loss.backward()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "not with transformers 5.99.0" in caplog.text


def test_a_library_without_what_the_models_need_is_named_in_one_line(monkeypatch):
    monkeypatch.setattr(transformers, "__version__", "5.1.0")
    monkeypatch.setitem(sys.modules, "transformers.utils.output_capturing", None)
    specification = importlib.util.spec_from_file_location("versions_of_a_checkpoint", versions_xformer.__file__)
    with pytest.raises(ImportError, match=r"tested with transformers 5\.18 .* not with transformers 5\.1\.0") as error:
        specification.loader.exec_module(importlib.util.module_from_spec(specification))
    assert "\n" not in str(error.value)


def test_a_round_trip_notices_other_results(tmp_path, monkeypatch):
    monkeypatch.setattr(round_trip, "kinds", lambda: {"blocks": VARIANTS["rope-pre-blocks"]})
    round_trip.save(tmp_path)
    round_trip.load(tmp_path, None, "hf_xformer")
    expected = tmp_path / "blocks" / round_trip.EXPECTED
    expected.write_text(re.sub(r'"greedy": \[\[(\d+)', r'"greedy": [[9\1', expected.read_text()))
    with pytest.raises(AssertionError, match="blocks: other tokens, greedy"):
        round_trip.load(tmp_path, None, "hf_xformer")
