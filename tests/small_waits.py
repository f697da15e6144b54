# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Training steps that may not wait for the device: nothing in them may depend on a tensor's values."""

from contextlib import nullcontext

import torch
from accelerate.utils import send_to_device
from small_models import VANILLA, VARIANTS, make_batch, pack
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hf_xformer.models import make_packing


# Kinds of positions and of layers; the blocks of the last two are shifted, have global tokens, and are windows.
PACKED_MODELS = {
    "rope": {},
    "sinusoidal": VANILLA,
    "relative": VARIANTS["relative-pre"],
    "blocks": VARIANTS["rope-pre-blocks"],
    "windows": {
        **{"encoder_layer_types": ["sliding_attention"] * 2, "decoder_layer_types": ["sliding_attention"] * 3},
        **{"block_size": 2, "num_global_tokens": 1, "num_key_value_heads": 2},
    },
}
# Operations whose result's shape or value the host reads.
WAITING = {
    *("_local_scalar_dense", "is_nonzero", "item", "nonzero", "masked_select", "equal", "repeat_interleave"),
    *("_unique", "_unique2", "unique_dim", "unique_consecutive"),
}


class NoWaits(TorchDispatchMode):
    """Refuses every operation, of the backward pass too, after which a host waits for its device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        assert name not in WAITING or kwargs.get("output_size") is not None, f"{func} waits for the device"
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            types_of_indices = {each.dtype for each in args[1] if each is not None}
            assert not types_of_indices & {torch.bool, torch.uint8}, f"{func} by a mask waits for the device"
        out = func(*args, **kwargs)
        devices = {x.device for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor) and x.ndim}
        assert len(devices) < 2, f"{func} copies between {devices}"
        return out


def make_packed(layout=((2, 0), (1,)), lengths: tuple[int, int] | None = None) -> dict:
    """The batch of [`pack`] as the collator makes it, with the layout of its rows."""
    batch = pack(make_batch(), layout, lengths)
    names = ("segment_ids", "decoder_segment_ids", "labels")
    return {**batch, "packing": make_packing(*(batch[name] for name in names))}


def autocast(device: str, dtype: torch.dtype | None):
    """Returns the context of a forward pass that computes in this type; None is that of the weights."""
    return nullcontext() if dtype is None else torch.autocast(device, dtype)


def train_step(model: nn.Module, batch: dict, device: str, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Returns the loss of one step, forward, under autocast to `dtype`, and backward, on tensors that are there."""
    batch = send_to_device(batch, device)
    model, tokens = model.to(device).train(), torch.full((), 17, device=device)
    with NoWaits():
        with autocast(device, dtype):
            loss = model(**batch, num_items_in_batch=tokens).loss
        loss.backward()
    return loss
