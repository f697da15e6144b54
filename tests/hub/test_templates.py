# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Text from data, from files' names and from records is text in a card, whatever it spells."""

import ast
import json
import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import example, given
from hypothesis import strategies as st
from small_records import FACTS, make_record

from hf_xformer.commands import card
from hf_xformer.hub.card import facts_of, read_facts, render
from hf_xformer.hub.templates import address, cell, code, plain, prose, quoted


INJECTIONS = [
    'a"]: {{7*7}} <script>alert(1)</script>.jsonl',
    "---\nlicense: mit\n---\n# Title",
    "line\n\n# Heading\n| a | b |\n\n- item",
    "`code` ``more`` ```\nfence\n```",
    "![x](http://example.org/x.png) [y](javascript:alert)",
    "<img src=x onerror=alert(1)> &lt;b&gt; <!-- -->",
    "{% for each in ().__class__.__base__.__subclasses__() %}{{ each }}{% endfor %}",
    "*a* _b_ ~~c~~ \\* $x$",
    "! %: &anchor *alias 'single \"double",
    "</td></tr>|cell|",
]


def header(text: str) -> dict:
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)[1])


def body(text: str) -> str:
    return re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def card_of(folder: Path, name: str = "user/model", tested: dict | None = None, facts: dict | None = None, **record):
    (folder / "run.json").write_text(json.dumps(make_record(facts=FACTS | (facts or {}), **record)))
    (folder / "test_results.json").write_text(json.dumps(tested or {}))
    (folder / "eval_results.json").write_text(json.dumps({"eval_loss": 1.25}))
    return str(render(folder, facts_of(json.loads((folder / "run.json").read_text())), name))


@given(st.text(st.characters()))
@example("<2de> Größe, \U0001f600 & 'so' \"on\"")
@example("\x7f\u2028\u202e\U000e0001\\")
def test_a_text_in_the_code_of_a_card_is_the_text(text):
    written = quoted(text)
    assert ast.literal_eval(written) == text and written.isprintable()
    assert "\\" in written or '"' in text or written == f'"{text}"'  # nobody has to read escapes of what can be seen


@pytest.mark.parametrize("text", INJECTIONS)
def test_no_value_of_a_record_becomes_more_than_text(text, folder):
    ordinary = card_of(folder)
    tested = {"metrics": [text], text: 1.5, "test_file": [text], f"{text}_signature": text, "decoding": {text: text}}
    spoilt = card_of(
        folder,
        tested=tested,
        recipe=text,
        commit=text,
        options=f"--source_column {text}",
        base_model=text,
        trained_on=text,
        evaluated_on=text,
        batch=text,
        hardware={"kind": "cpu", "count": 2, "name": text},
        versions={text: text},
        optimisation={text: text},
    )
    # One header, whose fields are the ordinary ones and hold the text itself.
    assert header(spoilt).keys() == header(ordinary).keys() | {"base_model"}
    assert header(spoilt)["license"] == "apache-2.0" and header(spoilt)["tags"] == header(ordinary)["tags"]
    assert (
        header(spoilt)["base_model"] == " ".join(text.split()) == header(spoilt)["co2_eq_emissions"]["hardware_used"]
    )
    assert ModelCard(spoilt).data.license == "apache-2.0"
    rest = body(spoilt)
    # Headings and fences are the same, rows have their cells, and nothing is HTML, a picture or evaluated.
    assert re.findall(r"^#.*", rest, re.M) == re.findall(r"^#.*", body(ordinary), re.M)
    assert re.findall(r"^```.*", rest, re.M) == re.findall(r"^```.*", body(ordinary), re.M)
    outside = re.sub(r"```.*?```|`[^`\n]*`", "", rest, flags=re.DOTALL)
    assert not re.search(r"(?<!\\)!\[|(?<!\\)\]\(|<(?!https)", outside) and "49" not in rest
    assert not re.search(r"^---", rest, re.M)
    for row in re.findall(r"^\|.*", rest, re.M):
        assert len(re.findall(r"(?<!\\)\|", row)) in (3, 4)


@pytest.mark.parametrize("text", INJECTIONS)
def test_the_name_and_the_example_are_texts_in_the_cards_code(text, folder):
    rest = body(card_of(folder, name=text.replace("/", ""), facts={"example": text}))
    blocks = re.findall(r"^```python\n(.*?)^```", rest, re.DOTALL | re.M)
    assert len(blocks) == 2
    found = [json.loads(each) for block in blocks for each in re.findall(r'"(?:[^"\\\n]|\\.)*"', block) if each]
    assert text in found and text.replace("/", "") in found
    for block in blocks:
        compile(block, "card", "exec")


@pytest.mark.parametrize("text", INJECTIONS)
def test_what_people_write_is_no_html_no_header_and_no_template(text, folder):
    ordinary = card_of(folder)
    spoilt = card_of(folder, facts=dict.fromkeys(("summary", "data", "data_license", "limits", "data_url"), text))
    assert header(spoilt) == header(ordinary) and "49" not in body(spoilt)
    assert not re.search(r"<(?!https)", re.sub(r"```.*?```", "", body(spoilt), flags=re.DOTALL))


def test_ordinary_values_stand_as_they_are():
    for text in ("at most 2,048 source and 2,048 target tokens per step (1 process, no accumulation, packed)", ", ",
                 "2.13.0+cpu", "learning_rate", "cosine_with_restarts", "0.01", "2 cores of AMD EPYC"):  # fmt: skip
        assert plain(text) == text
    signature = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"
    assert code(signature) == f"`{signature}`" and cell("data/g2p/test.jsonl") == "`data/g2p/test.jsonl`"
    assert cell("a|b") == "a&#124;b"
    assert prose("Words. *Not* [more](https://x.org).") == "Words. *Not* [more](https://x.org)."
    assert address("https://x.org/a?b=1") == "<https://x.org/a?b=1>" and address("javascript:x") == "javascript:x"


def test_a_template_in_the_working_folder_is_not_read(folder, monkeypatch):
    ordinary = card_of(folder)
    (folder / "model_cards").mkdir()
    planted = "{{ cycler.__init__.__globals__.os.popen('touch marker').read() }}"
    (folder / "model_cards/template.md").write_text(planted)
    monkeypatch.chdir(folder)
    assert card_of(folder) == ordinary
    with pytest.raises(SystemExit):
        card.main([str(folder), "--template", "model_cards/template.md"])
    assert not (folder / "marker").exists()


@pytest.mark.parametrize(
    "line", ["summary: {a: b}", "limits: [a]", "license: [mit]", "language: [1]", "dataset_id: ../../x", "data_url: 3"]
)
def test_facts_are_texts(line, folder):
    (folder / "facts.yaml").write_text(line)
    with pytest.raises(ValueError, match=f"--card_facts .*{line.partition(':')[0]} must be"):
        read_facts(folder / "facts.yaml")
