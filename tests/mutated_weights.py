# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Random faults in safetensors files and their index, as strategies of hypothesis."""

import json

import torch
from hypothesis import strategies as st
from mutated_configs import changed_text, flipped
from mutations import original


@st.composite
def changed_weights(draw) -> tuple[torch.dtype, str, bytes]:
    """Draws a type, a change in words, and the content of a model.safetensors."""
    dtype = draw(st.sampled_from((torch.float32, torch.bfloat16)))
    data = (original("rope-pre", dtype).folder / "model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, numbers = json.loads(data[8 : 8 + length]), data[8 + length :]
    names = sorted(set(header) - {"__metadata__"})
    name, other = draw(st.sampled_from(names)), draw(st.sampled_from(names))
    how = draw(st.sampled_from(WEIGHT_EDITS))
    if how == "flip":
        for _ in range(draw(st.integers(1, 3))):
            data = flipped(data, draw(st.integers(0, 8 + length - 1)), draw(st.integers(0, 7)))
        return dtype, "bits of the header", data
    if how == "cut":
        return dtype, "cut off", data[: draw(st.integers(0, len(data) - 1))]
    if how == "longer":
        return dtype, "bytes behind it", data + b"\0" * draw(st.integers(1, 99))
    if how in ("not finite", "one not finite"):
        begin, end = header[name]["data_offsets"]
        value = torch.full((1,), draw(st.sampled_from((float("nan"), float("inf"), -float("inf")))), dtype=dtype)
        size = value.element_size()
        count = (end - begin) // size if how == "not finite" else 1
        at = begin + draw(st.integers(0, (end - begin) // size - count)) * size
        numbers = numbers[:at] + value.view(torch.uint8).numpy().tobytes() * count + numbers[at + size * count :]
        return dtype, f"{how}: {name}", with_header(json.dumps(header), numbers)
    text = edit_header(draw, how, header, name, other)
    return dtype, f"{how}: {name}", with_header(text, numbers)


WEIGHT_EDITS = (
    *("flip", "flip", "flip", "cut", "longer", "not finite", "one not finite", "relabel", "relabel", "relabel all"),
    *("offsets", "swap", "overlap", "shape", "turn", "rename", "drop", "twice", "metadata", "new", "reorder"),
)


TYPES = ("F16", "BF16", "I32", "U32", "I16", "U16", "F64", "I64", "U8", "BOOL", "F8_E4M3", "Q9", 5)
FILES = ("../x", "/etc/passwd", "none.safetensors", "", None, 5, [], "config.json")


def with_header(text: str, numbers: bytes) -> bytes:
    return len(text.encode()).to_bytes(8, "little") + text.encode() + numbers


def edit_header(draw, how: str, header: dict, name: str, other: str) -> str:
    """Returns a header's text with one thing changed."""
    entry = header[name]
    begin, end = entry["data_offsets"]
    bad = st.sampled_from((-1, 0, 1, begin + 1, end + 1, 2**40, 2**63, 1.5, "x", None))
    types = st.sampled_from(TYPES)
    if how == "relabel":
        entry["dtype"] = draw(types)
        if draw(st.booleans()):  # so that the bytes fit
            entry["shape"] = [*entry["shape"][:-1], entry["shape"][-1] * 2]
    elif how == "relabel all":
        label = draw(types)
        for each in header:
            if each != "__metadata__":
                header[each]["dtype"] = label
    elif how == "offsets":
        entry["data_offsets"][draw(st.integers(0, 1))] = draw(bad)
    elif how == "swap" and header[other]["shape"] != entry["shape"]:
        entry["data_offsets"], header[other]["data_offsets"] = header[other]["data_offsets"], [begin, end]
    elif how == "overlap" and other != name:
        header[other]["data_offsets"] = [begin, end]
    elif how == "shape":
        entry["shape"][draw(st.integers(0, len(entry["shape"]) - 1))] = draw(bad)
    elif how == "turn":
        entry["shape"] = entry["shape"][::-1] if draw(st.booleans()) else [*entry["shape"], 1]
    elif how == "rename":
        header[draw(st.sampled_from((f"{name}x", name.upper(), name.removeprefix("model."), "", "x" * 5000)))] = entry
        del header[name]
    elif how == "drop":
        del header[name]
    elif how == "metadata":
        header["__metadata__"] = draw(st.sampled_from((None, 5, {}, {"format": "tf"}, {"format": 5}, {"x": "y"})))
    elif how == "new":
        header["extra"] = {"dtype": "F32", "shape": [0], "data_offsets": [end, end]}
    text = json.dumps(header)
    if how == "twice":
        text = text[:-1] + f', "{name}": {json.dumps(draw(st.sampled_from((entry, header[other], 5))))}' + "}"
    if how == "reorder":
        text = json.dumps(dict(reversed(header.items())), indent=3)
    return text


@st.composite
def changed_indices(draw) -> tuple[str, dict[str, bytes | None]]:
    """Draws a change of an index in words, and the files that it changes."""
    name = "model.safetensors.index.json"
    before = original("rope-pre", shards=True)
    index = before.read(name)
    where = index["weight_map"]
    tensor, other = draw(st.sampled_from(sorted(where))), draw(st.sampled_from(sorted(where)))
    shard = where[tensor]
    edits = ("file", "other", "drop", "new", "size", "map", "text", "gone", "cut", "copy", "spaces")
    how = draw(st.sampled_from(edits))
    if how == "file":
        where[tensor] = draw(st.sampled_from(FILES))
    elif how == "other":
        where[tensor] = where[other]
    elif how == "drop":
        del where[tensor]
    elif how == "new":
        where[draw(st.sampled_from(("x", "", tensor + "x")))] = shard
    elif how == "size":
        index["metadata"] = draw(st.sampled_from((None, 5, {}, {"total_size": -1}, {"total_size": "x"})))
    elif how == "map":
        index["weight_map"] = draw(st.sampled_from((None, 5, [], {}, "x", {"x": shard})))
    elif how == "text":
        said, data = draw(changed_text(json.dumps(index)))
        return said, {name: data}
    elif how == "copy":  # of a shard in another's place
        return how, {where[other]: (before.folder / shard).read_bytes()}
    elif how in ("gone", "cut"):
        data = (before.folder / shard).read_bytes()
        return how, {shard: None if how == "gone" else data[: draw(st.integers(0, len(data) - 1))]}
    return f"{how} {tensor}", {name: json.dumps(index, indent=draw(st.sampled_from((None, 4)))).encode()}
