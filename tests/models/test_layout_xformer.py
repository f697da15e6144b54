# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The layout of packed rows: made once, read without a wait, and refused where it is of other rows."""

from random import Random

import pytest
import torch
from accelerate.utils import send_to_device
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import gradients, make_model
from small_waits import PACKED_MODELS, NoWaits, make_packed, train_step
from torch.testing import assert_close
from torch.utils.data import DataLoader
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments

from hf_xformer import XformerEncoderModel
from hf_xformer.models import make_packing, packing_xformer
from hf_xformer.models.layout_xformer import ACROSS, SOURCE, TARGET, Layout


packed_models = pytest.mark.parametrize("overrides", PACKED_MODELS.values(), ids=PACKED_MODELS)
backends = pytest.mark.parametrize("backend", ["eager", "sdpa"])


# "meta": tensors without values, so that looking at one fails, and a copy from the host is one between devices.
@pytest.mark.parametrize("device", ["cpu", "meta"])
@backends
@packed_models
def test_a_training_step_of_packed_rows_never_waits_for_the_device(overrides, backend, device, monkeypatch):
    monkeypatch.setattr(packing_xformer, "SHORT_SEGMENT", 4)
    model = make_model(**overrides)
    model.set_attn_implementation(backend)
    assert train_step(model, make_packed(), device).device.type == device


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("lengths", [(30, 17), (30, 40)], ids=["all labelled", "few labelled"])
def test_the_loss_does_not_ask_which_positions_are_labelled(lengths, device):
    assert train_step(make_model(), make_packed([[0, 1, 2]], lengths), device).device.type == device


def test_without_a_layout_a_step_waits():
    batch = make_packed()
    del batch["packing"]
    with pytest.raises(AssertionError, match="waits for the device"):
        train_step(make_model(), batch, "cpu")


@pytest.mark.parametrize(
    "look",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.unique(),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: torch.equal(x, x),
        lambda x: torch.ones(2).repeat_interleave(x.long()),
        lambda x: torch.ones(2).to(x.device),
    ],
    ids=["item", "bool", "nonzero", "mask", "unique", "tolist", "cpu", "equal", "repeat", "to device"],
)
def test_a_look_at_a_tensor_is_noticed(look):
    x = torch.ones(2, device="meta")
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), NoWaits():
        look(x)


@backends
@packed_models
def test_a_layout_that_is_given_changes_no_bit(overrides, backend):
    model, batch = make_model(**overrides), make_packed()
    model.set_attn_implementation(backend)
    results = []
    for each in (batch, {name: value for name, value in batch.items() if name != "packing"}):
        model.zero_grad()
        output = model(**each)
        output.loss.backward()
        results.append({"loss": output.loss, "logits": output.logits, **gradients(model)})
    assert_close(*results, atol=0, rtol=0)


lengths = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=6)


def rows_of(texts: list[list[int]], padding: int) -> torch.Tensor:
    """Numbers of the segments of texts of some lengths, row by row, with some padding behind."""
    width = max(map(sum, texts)) + padding
    rows = [[number for number, n in enumerate(row, start=1) for _ in range(n)] for row in texts]
    return torch.tensor([row + [0] * (width - len(row)) for row in rows])


@pytest.mark.slow
@given(rows=st.lists(lengths, min_size=1, max_size=3), padding=st.integers(0, 2))
@settings(max_examples=100, deadline=None)
def test_every_token_attends_in_one_group_to_all_of_its_segment_and_comes_back(rows, padding):
    ids = {
        SOURCE: rows_of([[source for source, _ in row] for row in rows], padding),
        TARGET: rows_of([[target for _, target in row] for row in rows], padding),
    }
    layout = Layout(make_packing(*ids.values()))
    # A number for each segment of all rows.
    numbers = {side: (torch.arange(len(each))[:, None] * 10 + each).flatten() for side, each in ids.items()}
    for name, sides in {SOURCE: (SOURCE, SOURCE), TARGET: (TARGET, TARGET), ACROSS: (TARGET, SOURCE)}.items():
        queries, keys = (numbers[side] for side in sides)
        is_text = ids[sides[0]].flatten() > 0
        groups, inverse = layout.groups(name)
        tokens = torch.cat([group.queries.flatten() for group in groups])
        assert torch.equal(tokens[inverse.flatten()][is_text], torch.arange(len(queries))[is_text].int())
        for group in groups:
            attended = torch.ones_like(group.keys).bool() if group.attended is None else group.attended
            own = queries[group.queries[:, :1]]
            assert (queries[group.queries] == own).all() and (keys[group.keys] == own)[attended].all()
            counts = torch.bincount(keys[ids[sides[1]].flatten() > 0], minlength=100)
            assert torch.equal(attended.sum(dim=1), counts[own.squeeze(1)])
            assert all(
                len(set(row[is_own].tolist())) == is_own.sum()
                for row, is_own in zip(group.keys, attended, strict=True)
            )
    for side, each in ids.items():
        longest, positions, room, borders = layout.side(side)
        before = [(each[:, :i] == each[:, i : i + 1]).sum(dim=1) for i in range(each.shape[1])]
        counts = torch.stack(before, dim=1)
        assert torch.equal(positions[each > 0], counts[each > 0].int())
        assert longest == counts[each > 0].max() + 1
        assert (borders[0], borders[-1], borders.diff().max()) == (0, each.numel(), room)
        assert {*each.flatten().diff().nonzero().flatten().add(1).tolist()} <= {*borders.tolist()}


def as_pinned(value):
    """As torch's data loaders hand on what they have pinned: tuples become lists."""
    if isinstance(value, dict):
        return {name: as_pinned(each) for name, each in value.items()}
    return [as_pinned(each) for each in value] if isinstance(value, tuple) else value


def test_loaders_trainer_and_accelerate_hand_a_layout_on_as_it_is(tmp_path):
    batch, model = make_packed(), make_model()
    (loaded,) = DataLoader([batch], batch_size=1, collate_fn=lambda batches: batches[0], num_workers=1)
    trainer = Seq2SeqTrainer(model, Seq2SeqTrainingArguments(tmp_path, use_cpu=True, report_to="none"))
    for moved in (loaded, as_pinned(batch), trainer._prepare_inputs(batch), send_to_device(batch, "cpu")):
        assert moved["packing"].keys() == batch["packing"].keys()
        assert torch.equal(moved["packing"]["index"], batch["packing"]["index"])
        assert torch.equal(model(**moved).loss, model(**batch).loss)
    # One tensor is all that is copied.
    tensors = [value for value in batch["packing"].values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 1 and send_to_device(batch["packing"], "meta")["index"].device.type == "meta"


@backends
def test_outside_a_graph_a_layout_for_one_is_not_read(backend):
    batch = make_packed()
    given = {**batch, "packing": make_packing(batch["segment_ids"], batch["decoder_segment_ids"], fixed=True)}
    model = make_model(max_position_embeddings=11, position_embedding_type="learned", norm_position="pre")
    model.set_attn_implementation(backend)
    assert torch.equal(model(**given).logits, model(**batch).logits)


def test_layouts_for_a_graph_have_the_same_sizes_for_nearly_all_rows_of_one_shape():
    sizes, random = [], Random(0)
    for _ in range(30):
        texts = [random.randint(4, 64) for _ in range(6)]
        ids = rows_of([texts], padding=6 * 64 - sum(texts))
        packing = make_packing(ids, ids, fixed=True)
        sizes.append((str(packing["sizes"]), packing["index"].numel()))
    assert len(set(sizes)) <= 4


def test_an_encoder_reads_the_sources_part():
    model, batch = XformerEncoderModel(make_model().config).eval(), make_packed()
    source = {name: batch[name] for name in ("input_ids", "segment_ids")}
    expected = model(**source).last_hidden_state
    for packing in (batch["packing"], make_packing(batch["segment_ids"])):
        assert torch.equal(model(**source, packing=packing).last_hidden_state, expected)


def test_a_layout_left_on_the_host_is_moved():
    batch, packing = send_to_device(make_packed(), "meta"), make_packed()["packing"]
    assert make_model().to("meta")(**{**batch, "packing": packing}).loss.device.type == "meta"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda batch: {"packing": make_packed([[0, 1, 2]])["packing"]}, r"another batch: `segment_ids` is \(2, 19\)"),
        (lambda batch: {"packing": make_packing(batch["segment_ids"])}, r"`decoder_segment_ids` is \(2, 15\).*None"),
        (lambda batch: {"segment_ids": None, "decoder_segment_ids": None}, "give it with `segment_ids`"),
        (
            lambda batch: {"packing": {**batch["packing"], "index": batch["packing"]["index"][:-1]}},
            "330 of its 331 numbers",
        ),
        (lambda batch: {"packing": {**batch["packing"], "sizes": {"format": 0}}}, "has format 0"),
        (lambda batch: {"packing": batch["packing"]["index"]}, "must be a dictionary"),
    ],
    ids=["another batch", "source alone", "no segments", "cut", "format", "tensor"],
)
def test_a_layout_of_other_rows_is_refused(change, said):
    batch = make_packed()
    with pytest.raises(ValueError, match=said):
        make_model()(**{**batch, **change(batch)})
