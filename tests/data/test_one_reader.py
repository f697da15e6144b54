# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Files of any content through all that read: the same rows, or the same refusal."""

import csv
import gzip
import io
import json
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from unittest.mock import patch

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig

from hf_xformer.commands import distill, evaluate, generate, tokenizer
from hf_xformer.data import sources
from hf_xformer.data.bad_rows import BadRows
from hf_xformer.data.formats import read_lines
from hf_xformer.data.reading import read_rows
from hf_xformer.decoding.hypotheses import Hypothesis
from hf_xformer.decoding.tally import Tally
from hf_xformer.errors import InputError
from hf_xformer.training.arguments import DataArguments
from hf_xformer.training.training_set import read_split


# What cells, lines and quotes are made of, and what some programs take for an end of a line or of a text.
CHARACTERS = "ab ,\"'\t\n\r\\{}[]:0é\u0301\u2028\u2029\x85\x0b\x0c\x1c\x00\ufeff\U0001f600"
PIECES = st.sampled_from(
    [*CHARACTERS, "\r\n", '""', ',"', '",', "null", "NA", "1e5", '{"source": "', '", "target": "']
)
HEADERS = {".csv": "source,target\n", ".tsv": "source\ttarget\n", ".jsonl": "", ".json": ""}
SOME = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
FEW = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True, scope="module")
def cache_of_its_own(tmp_path_factory):
    datasets.disable_progress_bars()
    with (
        patch.object(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache")),
        # Two thirds of the time would go into a hundred ways of naming a split.
        patch.object(sources, "get_data_patterns", lambda base: {"train": ["train.*"]}),
    ):
        yield
    datasets.enable_progress_bars()


def outcome(rows: Callable) -> list | str:
    """The rows, or the sentence that refuses them, without the option that gives their file."""
    try:
        return list(rows())
    except InputError as error:
        return re.sub(r"^--\w+: ", "", str(error))


def evaluated(file: Path, policy: str) -> list[dict]:
    """The sources and references that `evaluate` compares."""
    found = []

    class Mute:
        config, positions = GenerationConfig(), None
        model = SimpleNamespace(config=SimpleNamespace(), dtype="torch.float32", device=SimpleNamespace(type="cpu"))

        def new_report(self):
            return SimpleNamespace(cut=Tally(), without_end=0)

        def decode(self, sources, **options):
            found.extend({"source": source} for source in sources)
            return [[SimpleNamespace(text="x")] for _ in sources]

    def compare(metrics, predictions, references, sources, scoring):
        for row, targets in zip(found, references, strict=True):
            row["target"] = targets
        return {}

    words = ["x", "--test_file", str(file), "--metrics", "exact_match", "--on_bad_row", policy]
    with (
        patch.object(evaluate, "make_decoder", lambda args: Mute()),
        patch.object(evaluate, "compute_metrics", compare),
        patch("sys.stdout", io.StringIO()),
        patch("sys.stderr", io.StringIO()),
    ):
        evaluate.main.__wrapped__(words)
    return found


def learnt(policy: str, *where: str) -> list[dict]:
    """The rows that a tokenizer is trained on."""
    words = [*where, "--output_dir", "x", "--on_bad_row", policy]
    with patch("sys.stderr", io.StringIO()):
        return list(tokenizer.row_opener(tokenizer.make_parser().parse_args(words))())


def trained(data_args: DataArguments, policy: str, streaming: bool) -> Iterable[dict]:
    """The rows that a model is trained on."""
    bad_rows = BadRows(policy)
    rows = read_split(data_args, "train", bad_rows, lambda line: None, streaming)
    bad_rows.tell(lambda line: None)
    return rows


def check_all_agree(suffix: str, content: str, policy: str) -> None:
    """Holds all readers of pairs against `read_rows`."""
    with TemporaryDirectory() as folder:
        file = Path(folder, f"train{suffix}")
        file.write_bytes((HEADERS[suffix] + content).encode())
        expected = outcome(lambda: read_rows([file], bad_rows=BadRows(policy)))
        for data in (DataArguments(train_file=[str(file)]), DataArguments(dataset_name=folder)):
            data.on_bad_row = policy
            for streaming in (False, True):
                found = outcome(lambda d=data, s=streaming: trained(d, policy, s))
                # A stream stops at its first bad row instead of counting all.
                assert found == expected or (streaming and policy == "error" and isinstance(expected, str))
        assert outcome(lambda: evaluated(file, policy)) == expected
        assert outcome(lambda: learnt(policy, "--train_file", str(file))) == expected
        assert outcome(lambda: learnt(policy, "--dataset_name", folder)) == expected


files = given(
    suffix=st.sampled_from(list(HEADERS)),
    content=st.lists(PIECES, max_size=20).map("".join),
    policy=st.sampled_from(["error", "skip"]),
)


@pytest.mark.slow
@SOME
@example(".tsv", '"open\ty\nb"\tz\n', "error")
@example(".csv", "null,5\nNA,1e5\n", "error")
@example(".csv", "a\rb,c\r\n", "error")
@example(".jsonl", '{"source": "", "target": "b"}\n{"source": "a", "target": "b\u2028"}\n', "skip")
@files
def test_all_readers_give_the_same_rows_or_the_same_refusal(suffix, content, policy):
    check_all_agree(suffix, content, policy)


@pytest.mark.nightly
@MANY
@files
def test_all_readers_agree_on_two_thousand_files(suffix, content, policy):
    check_all_agree(suffix, content, policy)


def written(suffix: str, rows: list[dict], end: str, path: Path) -> None:
    """Writes rows by the libraries' own writers."""
    match suffix:
        case ".parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + end for row in rows), newline="")
        case ".csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, ["target", "source"], lineterminator=end, quoting=csv.QUOTE_ALL)
                writer.writeheader()
                writer.writerows(rows)
        case ".tsv":
            lines = ["target\tsource", *(f"{row['target']}\t{row['source']}" for row in rows)]
            path.write_text(end.join(lines) + end, newline="", encoding="utf-8")


def can_be_seen(text: str) -> bool:
    """Tells whether a text is more than spaces and marks without a width, by Unicode's own categories."""
    return any(not c.isspace() and unicodedata.category(c) != "Cf" for c in text)


TEXTS = st.text(alphabet=st.sampled_from(CHARACTERS), min_size=1, max_size=8).filter(can_be_seen)


@FEW
@given(
    suffix=st.sampled_from([".parquet", ".jsonl", ".csv", ".tsv"]),
    rows=st.lists(st.fixed_dictionaries({"source": TEXTS, "target": TEXTS}), min_size=1, max_size=5),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_every_format_gives_back_what_a_library_wrote(suffix, rows, end):
    if suffix == ".tsv":  # without quoting, a cell holds neither a tab nor the end of a line
        rows = [{side: text.replace("\t", "t").replace("\n", "n") for side, text in row.items()} for row in rows]
    if suffix in (".csv", ".tsv"):  # a carriage return before a line feed is part of the end of the line
        rows = [{side: text.replace("\r\n", "\n").rstrip("\r") or "r" for side, text in row.items()} for row in rows]
        rows = [{side: text if can_be_seen(text) else "r" for side, text in row.items()} for row in rows]
    with TemporaryDirectory() as folder:
        path = Path(folder, f"a{suffix}")
        written(suffix, rows, end, path)
        assert list(read_rows([path])) == [{**row, "target": [row["target"]]} for row in rows]


@FEW
@given(st.lists(PIECES, min_size=1, max_size=30).map("".join))
def test_plain_text_is_read_alike_from_files_packed_files_and_streams(content):
    raw = content.encode()
    with TemporaryDirectory() as folder:
        path, packed = Path(folder, "a.txt"), Path(folder, "a.gz")
        path.write_bytes(raw)
        packed.write_bytes(gzip.compress(raw))
        lines = list(read_lines(path))
        # Python's own universal newlines would end lines elsewhere; a plain split at line feeds does not.
        parts = content.removeprefix("\ufeff").split("\n")
        ended = [part.removesuffix("\r") for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])
        assert lines == ended or content == "\ufeff"
        assert list(read_lines(packed)) == lines == list(read_lines(io.BytesIO(raw)))
        kept = [line for line in lines if can_be_seen(line)]
        rows = outcome(lambda: read_rows([path], target_column=None, bad_rows=BadRows("skip")))
        assert [row["source"] for row in rows] == kept if kept else "no row is left" in rows


def test_generate_and_distill_read_lines_alike(tmp_path, monkeypatch, capsys):
    path = tmp_path / "a.txt"
    path.write_bytes("cd\ne\rf\nx\u2028y\r\n".encode())
    seen: list[str] = []

    class Mute:
        config, new_report = GenerationConfig(), staticmethod(lambda: None)

        def decode(self, sources, **options):
            for source in sources:
                seen.append(source)
                yield [Hypothesis("x")]

    for module in (generate, distill):
        monkeypatch.setattr(module, "make_decoder", lambda *args: Mute())
    generate.main(["x", "--input", str(path)])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(path.read_bytes())))
    generate.main(["x"])
    distill.main(["x", "--train_file", str(path), "--output_file", str(tmp_path / "out.jsonl")])
    assert seen == ["cd", "e\rf", "x\u2028y"] * 3
