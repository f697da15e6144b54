# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Tells files by content and place, whatever their names: links out of a folder, pickles, archives, text."""

import json
import pickletools
import stat
import zipfile
from pathlib import Path

from ..checkpoints.weight_files import read_header
from ..errors import ArgumentError


PICKLE = "a pickle, which can run anything when it is loaded"
ZIP = "a zip archive, in which torch and NumPy store pickles"
# The first bytes of what may hold a pickle: of `torch.save`, of joblib with and without compression, of NumPy.
BEGINNINGS = {
    b"PK\x03\x04": ZIP,
    b"PK\x05\x06": ZIP,
    b"\x93NUMPY": "an array of NumPy, which may hold pickles",
    b"\x1f\x8b": "compressed by gzip, as joblib's pickles are",
    b"BZh": "compressed by bzip2, as joblib's pickles are",
    b"\xfd7zXZ": "compressed by xz, as joblib's pickles are",
    b"\x5d\x00\x00": "compressed by lzma, as joblib's pickles are",
    b"\x04\x22\x4d\x18": "compressed by lz4, as joblib's pickles are",
    b"\x28\xb5\x2f\xfd": "compressed by zstd, as joblib's pickles may be",
    b"\x78\x01": "compressed by zlib, as joblib's pickles are",
    b"\x78\x9c": "compressed by zlib, as joblib's pickles are",
    b"\x78\xda": "compressed by zlib, as joblib's pickles are",
}
PNG = b"\x89PNG\r\n\x1a\n"
SENTENCEPIECE = b"\n"  # the first field of its model
# Instructions of a pickle without which it can call nothing.
NAMING = {"GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"}
HEAD = 512  # bytes; a tar archive's mark is in there
LONGEST_TEXT = 2**24  # bytes that are looked at for a pickle in letters


def link_out(path: Path, folder: Path) -> str | None:
    """Returns where a path leads if that is outside of the folder, by a link or above the path; None within."""
    real = path.resolve()
    return None if real.is_relative_to(folder.resolve()) else str(real)


def hidden_code(path: Path) -> str | None:
    """Returns what a file is if loading it may run code: a pickle of any protocol, or what pickles come in."""
    if not stat.S_ISREG(path.stat().st_mode):
        return "no regular file"
    if path.suffix == ".safetensors" and is_safetensors(path):
        return None  # it begins with its header's length, which may be the first bytes of anything
    with path.open("rb") as file:
        head = file.read(HEAD)
        if head[:1] == b"\x80" and head[1:2] in (b"\x01", b"\x02", b"\x03", b"\x04", b"\x05", b"\x06"):
            return PICKLE
        for beginning, kind in BEGINNINGS.items():
            if head.startswith(beginning):
                return kind
        if head[257:262] == b"ustar":
            return "a tar archive, in which torch stored pickles"
        if head[:8] != PNG and is_pickle_in_letters(head + file.read(LONGEST_TEXT)):
            return PICKLE
    return ZIP if zipfile.is_zipfile(path) else None


def is_safetensors(path: Path) -> bool:
    """Returns whether a file is tensors by its header, as long as the header says: then nothing in it is a pickle."""
    try:
        read_header(path)
    except ArgumentError:
        return False
    return True


def is_pickle_in_letters(content: bytes) -> bool:
    """
    Returns whether bytes begin with a pickle without a mark at its start, as those of protocol 0 and 1 are, that names
    something to call. Many a text is one that names nothing: "1. Definitions" are two instructions.
    """
    try:
        return not NAMING.isdisjoint({instruction.name for instruction, _, _ in pickletools.genops(content)})
    except Exception:  # of many types: whatever is no pickle
        return False


def check_content(name: str, path: Path) -> None:
    """
    Checks that a file is what its name says, and nothing that runs code when it is loaded.

    Args:
        name: Its name on the Hub, for the message.

    Raises:
        ArgumentError: It is a pickle or an archive, or not the JSON, text, picture or safetensors file of its name.
    """
    if (kind := hidden_code(path)) is not None:
        raise ArgumentError(f"{path}: {kind}: it cannot be published as {name}; remove it")
    if path.suffix == ".safetensors":
        read_header(path)
        return
    content = path.read_bytes()
    if path.suffix == ".png":
        is_right = content.startswith(PNG)
    elif path.suffix in (".model", ".spm") and content.startswith(SENTENCEPIECE):
        is_right = True
    else:
        is_right = is_text(content) and (path.suffix != ".json" or is_json(content))
    if not is_right:
        raise ArgumentError(f"{path}: not what its name says: it cannot be published; remove it or write it anew")


def is_text(content: bytes) -> bool:
    """Returns whether bytes are a text in UTF-8."""
    try:
        return "\0" not in content.decode("utf-8")
    except UnicodeDecodeError:
        return False


def is_json(content: bytes) -> bool:
    """Returns whether bytes are JSON in UTF-8, without a byte-order mark, at which readers of JSON fail."""
    try:
        json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        return False
    return True
