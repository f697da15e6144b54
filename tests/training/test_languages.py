# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""One model of several languages: tokens before sources or targets, from training to scores of each pair."""

import json
from pathlib import Path

import pytest
from small_runs import refused
from small_stock_models import BART_SIZES
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    M2M100Config,
    MBart50Tokenizer,
    MBartConfig,
    MBartTokenizer,
    NllbTokenizer,
    Seq2SeqTrainingArguments,
)

from hf_xformer.commands import evaluate, train
from hf_xformer.data.templates import TEMPLATES
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.decoding.decoder import Decoder
from hf_xformer.training.arguments import DataArguments
from hf_xformer.training.evaluation import fit_generation


TAGGED = {side: f"<2{{target_lang}}> {{{side}}}" for side in ("source", "target")}


@pytest.fixture(params=TAGGED)
def side(request) -> str:
    """Side whose texts begin with a language."""
    return request.param


@pytest.fixture
def languages(task, tmp_path, side) -> dict[str, str]:
    """Options of a run that spells words forwards or backwards, as the column `target_lang` says."""
    for split, path in (("train", task.train), ("validation", task.validation)):
        rows = []
        for line in Path(path).read_text().splitlines():
            row = json.loads(line)
            rows.append(row | {"target_lang": "back"})
            rows.append({"source": row["source"], "target": row["source"], "target_lang": "same"})
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = train_tokenizer([" ".join("ABCDEFGH")], "symbol", added_tokens=["<2back>", "<2same>"])
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    files = {f"{split}_file": str(tmp_path / f"{split}.jsonl") for split in ("train", "validation")}
    return files | {"tokenizer_name": str(tmp_path / "tokenizer"), f"{side}_column": TAGGED[side]}


@pytest.mark.parametrize("streaming", ["false", "true"])
def test_a_language_without_a_token_is_refused_before_training(streaming, task, languages, tmp_path, capsys):
    options = languages | {"tokenizer_name": task.tokenizer, "streaming": streaming}
    line = refused(train, task.options(tmp_path / "run", **options), capsys)
    assert "validation: texts begin with <2back>, <2same> (row 1 is the first), and the tokenizer" in line
    assert "--added_tokens '<2back>' '<2same>'" in line


@pytest.mark.slow
def test_a_run_keeps_the_template_with_its_tokenizer(side, task, languages, tmp_path):
    train.main(task.options(tmp_path / "run", **languages))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run")
    assert [tokenizer.init_kwargs.get(TEMPLATES[each]) for each in TAGGED] == [
        template if each == side else None for each, template in TAGGED.items()
    ]
    said: list[str] = []
    options = {"device": "cpu", "tgt_lang": "same", "max_new_tokens": 8, "say": said.append}
    decoder = Decoder.from_pretrained(str(tmp_path / "run"), **options)
    assert decoder.languages("A B") == ("<2same> A B" if side == "source" else "A B")
    assert len(list(decoder.decode(["A B"]))) == 1 and not said


@pytest.mark.parametrize("side", ["target"], indirect=True)
def test_texts_that_are_not_told_their_language_have_no_metric(task, languages, tmp_path, capsys):
    options = languages | {"metrics": "exact_match", "eval_strategy": "epoch"}
    line = refused(train, task.options(tmp_path / "run", **options), capsys)
    assert "the language in --target_column '<2{target_lang}> {target}' is not told to the texts" in line


BASES = {
    "NLLB": (M2M100Config, NllbTokenizer, "eng_Latn", "fra_Latn"),
    "mBART-50": (MBartConfig, MBart50Tokenizer, "en_XX", "ro_RO"),
    "mBART": (MBartConfig, MBartTokenizer, "en_XX", "ro_RO"),
}


@pytest.mark.parametrize("is_told", [False, True], ids=["of no language", "of another language"])
@pytest.mark.parametrize("kind", BASES)
def test_a_multilingual_base_generates_in_the_language_that_it_is_trained_on(kind, is_told, tmp_path):
    """As in transformers issue 41492, an evaluation in training would be of texts in another language."""
    make_config, make_tokenizer, source, target = BASES[kind]
    tokenizer = make_tokenizer()
    tokenizer.src_lang, tokenizer.tgt_lang = source, target
    tokens = {"pad_token_id": 1, "eos_token_id": 2, "bos_token_id": 0, "decoder_start_token_id": 2}
    model = AutoModelForSeq2SeqLM.from_config(make_config(**{**BART_SIZES, **tokens, "vocab_size": len(tokenizer)}))
    name = "decoder_start_token_id" if kind == "mBART" else "forced_bos_token_id"
    if is_told:
        setattr(model.generation_config, name, tokenizer.convert_tokens_to_ids(source))
    args, said = Seq2SeqTrainingArguments(tmp_path), []
    fit_generation(model, tokenizer, DataArguments(max_target_length=8), args, said.append)
    batch, seen = tokenizer("A", text_target="A", return_tensors="pt"), []
    decoder = model.get_decoder()
    decoder.register_forward_pre_hook(lambda _, args, given: seen.append(given["input_ids"]), with_kwargs=True)
    model(**batch)
    trained = seen[0][0].tolist()
    del batch["labels"]
    generated = model.generate(**batch)[0].tolist()
    begin = trained[: trained.index(tokenizer.convert_tokens_to_ids(target)) + 1]
    assert len(begin) == (1 if kind == "mBART" else 2) and generated[: len(begin)] == begin
    assert any(name in line for line in said) == (is_told or kind == "mBART")


def test_a_generation_config_that_is_given_says_how_texts_begin(tmp_path):
    (tmp_path / "given.json").write_text('{"forced_bos_token_id": 5}')
    tokenizer = NllbTokenizer()
    tokenizer.src_lang, tokenizer.tgt_lang = "eng_Latn", "fra_Latn"
    model = AutoModelForSeq2SeqLM.from_config(M2M100Config(**{**BART_SIZES, "vocab_size": len(tokenizer)}))
    args = Seq2SeqTrainingArguments(tmp_path, generation_config=tmp_path / "given.json")
    assert fit_generation(model, tokenizer, DataArguments(), args, print).forced_bos_token_id == 5


@pytest.mark.nightly
def test_one_model_learns_two_languages_and_is_told_which_to_write(side, task, languages, tmp_path, capsys):
    sizes = "d_model=64,encoder_layers=2,decoder_layers=2,encoder_ffn_dim=128,decoder_ffn_dim=128,dropout=0.0"
    options = {"config_overrides": sizes, "max_steps": 700, "per_device_train_batch_size": 32, "learning_rate": 3e-3}
    train.main(task.options(tmp_path / "run", **languages, **options))
    capsys.readouterr()
    # By heart: the words of the training, each once backwards and once as it is.
    words = ["--test_file", languages["train_file"], "--max_samples", "60", "--metrics", "exact_match"]
    evaluate.main([str(tmp_path / "run"), *words, "--by", "{target_lang}", f"--{side}_column", TAGGED[side]])
    results = json.loads(capsys.readouterr().out)
    assert results["samples_back"] == results["samples_same"] == 30
    assert results["exact_match_back"] > 80 and results["exact_match_same"] > 80
    # Words of one language, which the command line says.
    rows = [json.loads(line) for line in Path(languages["train_file"]).read_text().splitlines()[:60]]
    told = {
        lang: Decoder.from_pretrained(str(tmp_path / "run"), device="cpu", tgt_lang=lang) for lang in ("back", "same")
    }
    for language, decoder in told.items():
        mine = [row for row in rows if row["target_lang"] == language]
        texts = [best[0].text for best in decoder.decode([row["source"] for row in mine])]
        right = sum(text == row["target"] for text, row in zip(texts, mine, strict=True)) / len(mine)
        assert 100 * right == pytest.approx(results[f"exact_match_{language}"])
