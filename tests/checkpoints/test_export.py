# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Exports compute and decode in CTranslate2 what their checkpoints do in PyTorch; the rest is refused by name."""

import json
import sys
from itertools import takewhile

import pytest
import torch
from small_models import SIZES, VANILLA, VARIANTS, make_model
from small_runs import refused
from small_stock_models import make_stock
from torch.testing import assert_close
from transformers import GenerationConfig, MarianTokenizer

from hf_xformer.checkpoints import export as library
from hf_xformer.checkpoints.export import (
    ACTIVATIONS,
    decoding_options,
    export_checkpoint,
    log_probabilities,
    make_spec,
    tokens_of,
)
from hf_xformer.commands import export
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.errors import ArgumentError


ctranslate2 = pytest.importorskip("ctranslate2")

LENGTHS = (11, 8, 5)  # of the sources
END, START = 1, 2
TEXT_SIDES = ("source", "target")
RELATIVE = VARIANTS["relative-pre"]


def rope(rope_type: str, **more) -> dict:
    return {"rope_parameters": {"rope_type": rope_type, "rope_theta": 1000.0, **more}}


SCALED = {"factor": 4.0, "original_max_position_embeddings": 16}
YARN = rope("yarn", **SCALED)
EXPORTED = {
    **{name: fields for name, fields in VARIANTS.items() if name != "rope-pre-blocks"},
    "sandwich": {**VANILLA, "norm_position": "sandwich"},
    "relative-sandwich-qk-norm": {**RELATIVE, "norm_position": "sandwich", "qk_norm": True},
    "relative-per-layer": {**RELATIVE, "relative_attention_per_layer": True},
    "relative-odd": {**RELATIVE, "relative_attention_num_buckets": 9, "num_key_value_heads": 2},
    "none-gqa-post": {"position_embedding_type": "none", "norm_position": "post", "num_key_value_heads": 2},
    "sinusoidal-gqa-qk-norm": {**VANILLA, "num_key_value_heads": 2, "qk_norm": True},
    "one-key-value-head": {"num_key_value_heads": 1, "head_dim": 12},
    "heads-differ": {"encoder_attention_heads": 8, "num_key_value_heads": 2},
    "embedding-norm": {"layernorm_embedding": True},
    "learned-embedding-norm": {**VARIANTS["learned-pre"], "layernorm_embedding": True},
    "biases": {"use_bias": True, "use_final_logits_bias": True, "scale_embedding": False},
    "large-eps": {"norm_eps": 1e-2},
    "attention-multiplier": {"attention_multiplier": 0.7},
    "two-vocabularies": {"encoder_vocab_size": 61},
    "two-vocabularies-untied": {"encoder_vocab_size": 61, "tie_word_embeddings": False},
    "theta": rope("default"),
    "linear": rope("linear", factor=4.0),
    "llama3": rope("llama3", **SCALED, low_freq_factor=1.0, high_freq_factor=4.0),
    "yarn": {**YARN, "head_dim": 12},
    "plain-feed-forward": {"gated_ffn": False, "activation_function": "gelu"},
}
variants = pytest.mark.parametrize("fields", EXPORTED.values(), ids=EXPORTED)


@pytest.fixture(scope="module")
def tokenizer():
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return train_tokenizer([" ".join(letters) + " " + " ".join(letters[:15].lower())], "symbol")


def make_uneven_model(**fields):
    """As `make_model`, with norms and biases that are not ones and zeros."""
    model = make_model(**fields)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter += 0.3 * torch.randn_like(parameter)
    return model


@pytest.fixture
def checkpoint(tokenizer, tmp_path):
    """Saves a model with its tokenizers; returns the model and the folder."""

    def save(model=None, dtype=torch.float32, **fields):
        model = model or make_uneven_model(**fields)
        folder = tmp_path / "checkpoint"
        model.to(dtype).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if model.config.encoder_vocab_size:
            tokenizer.save_pretrained(folder / "target_tokenizer")
        return model.float(), folder

    return save


@pytest.fixture
def exported(checkpoint, tmp_path):
    """The same, exported; returns the model and its translator."""

    def make(quantization=None, **fields):
        model, folder = checkpoint(**fields)
        export_checkpoint(str(folder), tmp_path / "out", quantization)
        return model, Translator(tmp_path / "out")

    return make


class Translator:
    """CTranslate2 from ids to ids."""

    def __init__(self, folder):
        self.translator = ctranslate2.Translator(str(folder), intra_threads=1)
        shared = folder / "shared_vocabulary.json"
        files = [shared] * 2 if shared.exists() else [folder / f"{side}_vocabulary.json" for side in TEXT_SIDES]
        self.source, self.target = (json.loads(file.read_text()) for file in files)
        self.options = json.loads((folder / "decoding.json").read_text())

    def translate(self, sources: list[list[int]], **options) -> list[list[int]]:
        batch = [[self.source[i] for i in ids] for ids in sources]
        results = self.translator.translate_batch(batch, **{**self.options, **options})
        return [[self.target.index(token) for token in result.hypotheses[0]] for result in results]

    def score(self, sources: list[list[int]], targets: list[list[int]]) -> list[torch.Tensor]:
        batch = [[self.source[i] for i in ids] for ids in sources]
        targets = [[self.target[i] for i in ids] for ids in targets]
        results = self.translator.score_batch(batch, targets, max_input_length=0)
        return [torch.tensor(result.log_probs) for result in results]


def make_rows(size: int, lengths=LENGTHS) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(4, size, (length,), generator=generator).tolist() for length in lengths]


def generate(model, sources: list[list[int]], **options) -> list[list[int]]:
    """What `generate()` makes of each source, up to the end token."""
    batch = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids in sources], batch_first=True)
    lengths = torch.tensor([[len(ids)] for ids in sources])
    mask = (torch.arange(batch.shape[1]) < lengths).long()
    rows = model.generate(batch, attention_mask=mask, **options)[:, 1:].tolist()
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    return [list(takewhile(lambda token: token not in ends, ids)) for ids in rows]


def worst(model, translator, sources, targets) -> float:
    """Largest difference of log-probabilities, the sources being one ragged batch in CTranslate2 and single here."""
    expected = [log_probabilities(model, s, [START, *t, END]) for s, t in zip(sources, targets, strict=True)]
    return max(
        (mine - theirs).abs().max().item()
        for mine, theirs in zip(expected, translator.score(sources, targets), strict=True)
    )


@variants
def test_log_probabilities_and_tokens_are_the_checkpoints(fields, exported):
    model, translator = exported(**fields)
    sources = make_rows(model.config.vocab_of("encoder"))
    assert worst(model, translator, sources, make_rows(SIZES["vocab_size"], (6, 9, 3))) < 1e-4
    # Each token once, or a random model would say the same one over and over. Of the start token, the library takes
    # the first for a repetition.
    greedy = generate(model, sources, max_length=10, no_repeat_ngram_size=1, bad_words_ids=[[START]])
    once = {"no_repeat_ngram_size": 1, "suppress_sequences": [["<s>"]]}
    assert translator.translate(sources, max_decoding_length=9, **once) == greedy
    assert len(set(map(tuple, greedy))) > 1 and max(map(len, greedy)) > 3
    # Under `early_stopping=True` and any length penalty the two searches are one.
    beams = generate(model, sources, max_length=10, num_beams=4, early_stopping=True, length_penalty=1.0)
    assert translator.translate(sources, max_decoding_length=9, beam_size=4) == beams


@pytest.mark.parametrize("is_gated", [True, False], ids=["gated", "plain"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_the_checkpoints(name, is_gated, exported):
    model, translator = exported(activation_function=name, gated_ffn=is_gated, encoder_layers=1, decoder_layers=1)
    assert worst(model, translator, make_rows(SIZES["vocab_size"]), make_rows(SIZES["vocab_size"])) < 1e-5


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, 2.0])
def test_searches_that_end_are_the_same(penalty, exported):
    model = make_uneven_model(use_final_logits_bias=True)
    model.lm_head.bias.data[END] = 3.0
    model, translator = exported(model=model)
    sources = make_rows(SIZES["vocab_size"], range(3, 13))
    options = {"num_beams": 4, "early_stopping": True, "length_penalty": penalty, "max_length": 15}
    expected = generate(model, sources, **options)
    assert sum(len(ids) < 14 for ids in expected) > 3
    found = translator.translate(sources, beam_size=4, length_penalty=penalty, max_decoding_length=14)
    assert found == expected


@pytest.mark.parametrize("fields", [{}, VANILLA, RELATIVE], ids=["rope", "sinusoidal", "relative"])
def test_padding_in_a_batch_changes_nothing(fields, exported):
    _, translator = exported(**fields)
    sources, targets = make_rows(SIZES["vocab_size"]), make_rows(SIZES["vocab_size"], (4, 7, 2))
    for beams in (1, 3):
        alone = [translator.translate([ids], beam_size=beams)[0] for ids in sources]
        assert translator.translate(sources, beam_size=beams) == alone
    alone = [translator.score([s], [t])[0] for s, t in zip(sources, targets, strict=True)]
    for one, other in zip(translator.score(sources, targets), alone, strict=True):
        assert_close(one, other, atol=1e-5, rtol=0)


LONG = {
    "rope": {},
    "yarn": YARN,
    "llama3": EXPORTED["llama3"],
    "relative": {**RELATIVE, "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128},
    "none": {"position_embedding_type": "none"},
}


@pytest.mark.parametrize("fields", LONG.values(), ids=LONG)
def test_positions_are_right_far_out(fields, exported):
    model, translator = exported(**fields)
    rows = [make_rows(SIZES["vocab_size"], lengths) for lengths in ((500, 301), (400, 203))]
    assert worst(model, translator, *rows) < 1e-4


@pytest.mark.parametrize("rope_type", ["linear", "yarn"])
def test_half_precision_does_not_round_the_angles(rope_type, exported):
    fields = rope(rope_type, factor=3.3, original_max_position_embeddings=256)
    model, halved = exported("float16", head_dim=64, **fields)
    for parameter in model.parameters():
        parameter.data = parameter.half().float()
    assert worst(model, halved, *[make_rows(SIZES["vocab_size"], (length,)) for length in (500, 400)]) < 1e-4


@pytest.mark.parametrize("quantization", ["int8", "int8_float32", "int16", "float16", "bfloat16"])
def test_quantised_log_probabilities_are_nearly_the_checkpoints(quantization, checkpoint, tmp_path):
    model, folder = checkpoint()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    whole, small = (
        export_checkpoint(str(folder), tmp_path / kind, kind) and tmp_path / kind for kind in ("float32", quantization)
    )
    sources, targets = make_rows(SIZES["vocab_size"]), make_rows(SIZES["vocab_size"], (6, 9, 3))
    assert 1e-4 < worst(model, Translator(small), sources, targets) < 0.3
    assert (small / "model.bin").stat().st_size < 0.6 * (whole / "model.bin").stat().st_size
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_quantisation_leaves_the_model_as_it_is():
    model = make_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    spec = make_spec(model)
    for register in (spec.register_source_vocabulary, spec.register_target_vocabulary):
        register([str(i) for i in range(SIZES["vocab_size"])])
    spec.validate()
    spec.optimize("int8")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_without_quantisation_the_weights_keep_their_type(dtype, checkpoint, tmp_path):
    _, folder = checkpoint(dtype=dtype)
    assert export_checkpoint(str(folder), tmp_path / "out").quantization == str(dtype).removeprefix("torch.")
    model = make_uneven_model()
    for parameter in model.parameters():
        parameter.data = parameter.to(dtype).float()
    rows = make_rows(SIZES["vocab_size"])
    assert worst(model, Translator(tmp_path / "out"), rows, rows) < 1e-4


def test_vocabularies_are_the_tokenizers_in_order(checkpoint, tokenizer, tmp_path):
    _, folder = checkpoint(encoder_vocab_size=61)
    train_tokenizer(["X Y Z Q"], "symbol").save_pretrained(folder / "target_tokenizer")
    export_checkpoint(str(folder), tmp_path / "out")
    source, target = (json.loads((tmp_path / f"out/{side}_vocabulary.json").read_text()) for side in TEXT_SIDES)
    assert (len(source), len(target)) == (61, 53)
    assert source[: len(tokenizer)] == tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    assert target[:9] == ["<pad>", "</s>", "<s>", "<unk>", "Q", "X", "Y", "Z", "<unused_0>"]
    assert len(set(source)) == 61 and len(set(target)) == 53
    assert not (tmp_path / "out/shared_vocabulary.json").exists()


def marian_tokenizer(folder, separate: bool) -> MarianTokenizer:
    sentencepiece = pytest.importorskip("sentencepiece")
    options = {"vocab_size": 12, "hard_vocab_limit": False, "minloglevel": 2}
    texts = iter(["A B C D", "E F", "G H"] * 9)
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=texts, model_prefix=str(folder / "p"), **options)
    for name, pieces in (("source", "ABCDEFGH"), ("target", "HGFE")):
        vocabulary = {piece: i for i, piece in enumerate(["</s>", "<unk>", "▁", *pieces, "<pad>"])}
        (folder / f"{name}.json").write_text(json.dumps(vocabulary))
    target = {"target_vocab_file": str(folder / "target.json"), "separate_vocabs": True} if separate else {}
    pieces = str(folder / "p.model")
    return MarianTokenizer(pieces, pieces, str(folder / "source.json"), **target)


def test_a_marian_tokenizer_may_hold_two_vocabularies(tmp_path):
    one, two = (marian_tokenizer(tmp_path, separate) for separate in (False, True))
    assert tokens_of(one, 13, "target") == ["</s>", "<unk>", "▁", *"ABCDEFGH", "<pad>", "<unused_0>"]
    assert tokens_of(two, 12, "source") == tokens_of(one, 12, "target")
    assert tokens_of(two, 9, "target") == ["</s>", "<unk>", "▁", *"HGFE", "<pad>", "<unused_0>"]


@pytest.mark.parametrize("separate", [False, True], ids=["one", "two"])
def test_a_converted_marian_exports_with_its_tokenizer(separate, tmp_path):
    tokens = {"pad_token_id": 11, "eos_token_id": 0, "decoder_start_token_id": 11, "bos_token_id": None}
    sizes = {"vocab_size": 12, "encoder_vocab_size": 13 if separate else None}
    folder = tmp_path / "checkpoint"
    make_uneven_model(**VANILLA, **tokens, **sizes).save_pretrained(folder)
    tokenizer = marian_tokenizer(tmp_path, separate)
    tokenizer.save_pretrained(folder)
    export_checkpoint(str(folder), tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert (config["eos_token"], config["unk_token"]) == ("</s>", "<unk>")
    tokens = json.loads((tmp_path / f"out/{'target' if separate else 'shared'}_vocabulary.json").read_text())
    assert tokens == tokens_of(tokenizer, 12, "target") and config["decoder_start_token"] == tokens[11]


def test_an_unused_row_takes_no_token_s_name(checkpoint, tokenizer, tmp_path):
    _, folder = checkpoint()
    train_tokenizer(["A <unused_0> B"], "symbol").save_pretrained(folder)
    export_checkpoint(str(folder), tmp_path / "out")
    tokens = json.loads((tmp_path / "out/shared_vocabulary.json").read_text())
    assert tokens.count("<unused_0>") == 1 and len(set(tokens)) == 53


GENERATION = {
    "nothing": {},
    "lengths": {"max_length": 9, "min_length": 6},
    "new-tokens": {"max_new_tokens": 5, "min_new_tokens": 4},
    "forced-end": {"max_length": 7, "forced_eos_token_id": END},
    "forbidden": {"bad_words_ids": [[5], [9, 31]], "suppress_tokens": [7, 11, 40]},
    "two-ends": {"eos_token_id": [END, 30]},
    "inactive": {"do_sample": False, "repetition_penalty": 1.0, "early_stopping": False},
}


@pytest.mark.parametrize("fields", GENERATION.values(), ids=GENERATION)
def test_the_arguments_beside_a_model_decode_as_its_generation_config(fields, checkpoint, tmp_path):
    model = make_uneven_model(use_final_logits_bias=True)
    model.lm_head.bias.data[[END, 30]] = torch.tensor([3.0, 2.0])
    for name, value in fields.items():
        setattr(model.generation_config, name, value)
    model, folder = checkpoint(model=model)
    assert export_checkpoint(str(folder), tmp_path / "out").left == {}
    sources = make_rows(SIZES["vocab_size"], range(3, 11))
    expected = generate(model, sources)
    assert Translator(tmp_path / "out").translate(sources) == expected
    assert len(set(map(len, expected))) > 1 or fields.keys() & {"max_new_tokens", "forced_eos_token_id"}


def test_positions_limit_the_length(exported):
    model, translator = exported(**VANILLA)
    assert decoding_options(GenerationConfig(max_length=999), vocabulary_of("x"), 64)[0]["max_decoding_length"] == 64
    (ids,) = translator.translate([make_rows(53)[0]], max_decoding_length=64, min_decoding_length=64)
    assert len(ids) == 64


# All defaults, which a run's generation config spells out.
AS_THE_TRAINER_SAVES = {
    **{"min_length": 0, "do_sample": False, "early_stopping": False, "num_beams": 1, "temperature": 1.0, "top_k": 50},
    **{"top_p": 1.0, "typical_p": 1.0, "repetition_penalty": 1.0, "length_penalty": 1.0, "no_repeat_ngram_size": 0},
    **{"encoder_no_repeat_ngram_size": 0, "num_return_sequences": 1, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0},
    **{"encoder_repetition_penalty": 1.0, "num_assistant_tokens": 20, "num_assistant_tokens_schedule": "constant"},
    **{"assistant_confidence_threshold": 0.4, "assistant_lookbehind": 10, "target_lookbehind": 10, "max_length": 41},
    **{"diversity_penalty": 0.0, "num_beam_groups": 1, "remove_invalid_values": False, "use_cache": True},
}


def vocabulary_of(*tokens: str) -> library.Vocabulary:
    return library.Vocabulary([*tokens], [*tokens], tokens[0], [tokens[-1]], tokens[0])


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({"repetition_penalty": 1.2}, {"repetition_penalty": 1.2}),
        ({"no_repeat_ngram_size": 3}, {"no_repeat_ngram_size": 3}),
        ({"forced_bos_token_id": 0}, {"forced_bos_token_id": 0}),
        ({"do_sample": True, "top_p": 0.9}, {"do_sample": True, "top_p": 0.9}),
        ({"top_p": 0.9}, {}),
        ({**AS_THE_TRAINER_SAVES, "num_beams": 4, "early_stopping": True}, {}),
        ({"num_beams": 4}, {"early_stopping": False}),
        ({"num_beams": 4, "length_penalty": 0.0}, {}),
        ({"num_beams": 4, "early_stopping": True}, {}),
        ({"num_beams": 4, "early_stopping": True, "min_length": 3}, {"min_length": 3}),
        ({"num_beams": 4, "early_stopping": True, "bad_words_ids": [[0]]}, {"bad_words_ids": [[0]]}),
    ],
)
def test_what_the_arguments_do_not_stand_for_is_said(given, left):
    assert decoding_options(GenerationConfig(**given), vocabulary_of("x", "y"), None)[1] == left


def test_the_command_says_what_it_did(checkpoint, tmp_path, capsys):
    model = make_model()
    model.generation_config.num_beams = 4
    _, folder = checkpoint(model=model)
    export.main([str(folder), str(tmp_path / "new/out"), "--quantization", "int8"])
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{tmp_path / 'new/out'}: int8; log-probabilities")
    assert "`early_stopping=False` is not, or not exactly, in decoding.json" in captured.err
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]


REFUSED = {
    "encoder_layer_types": {"encoder_layer_types": ["full_attention", "chunked_attention"]},
    "decoder_layer_types": {"decoder_layer_types": ["full_attention", "sliding_attention", "full_attention"]},
    "activation_function": {"activation_function": "mish"},
    "rope_parameters": rope("dynamic", factor=2.0),
}


def values_of(value) -> list:
    return list(value.values()) if isinstance(value, dict) else [value]


@pytest.mark.parametrize(("field", "fields"), REFUSED.items(), ids=REFUSED)
def test_what_ctranslate2_lacks_is_refused_by_field_and_value(field, fields, checkpoint, tmp_path, capsys):
    _, folder = checkpoint(**fields)
    line = refused(export, [folder, tmp_path / "out"], capsys)
    assert f"`{field}=" in line and all(repr(value) in line for value in values_of(fields[field]))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_longrope_and_quantised_checkpoints_are_refused(checkpoint):
    factors = {"long_factor": [2.0] * 4, "short_factor": [1.0] * 4}
    model = make_model(head_dim=8, **rope("longrope", **SCALED, **factors))
    with pytest.raises(ArgumentError, match="`rope_parameters=.*longrope"):
        make_spec(model)
    model = make_model()
    model.config.quantization_config = {"load_in_4bit": True}
    with pytest.raises(ArgumentError, match="`quantization_config=.*load_in_4bit.*--quantization"):
        make_spec(model)


def test_a_tensor_that_has_no_place_is_refused():
    model = make_model()
    model.model.encoder.layers[0].adapter = torch.nn.Linear(32, 32, bias=False)
    with pytest.raises(ArgumentError, match=r"1 tensors.*model.encoder.layers.0.adapter.weight"):
        make_spec(model)


@pytest.mark.parametrize("name", ["decoder_start_token_id", "eos_token_id"])
def test_a_target_without_a_start_or_an_end_is_refused(name, tokenizer):
    model = make_model()
    setattr(model.generation_config, name, None)
    setattr(model.config, name, None)
    if name == "eos_token_id":
        tokenizer = train_tokenizer(["A"], "symbol")
        tokenizer.eos_token = None
    with pytest.raises(ArgumentError, match=f"`{name}=None`"):
        library.Vocabulary.of(model, tokenizer, tokenizer)


def test_an_export_that_computes_something_else_is_refused(checkpoint, tmp_path, monkeypatch, capsys):
    _, folder = checkpoint()
    monkeypatch.setitem(ACTIVATIONS, "silu", "RELU")
    assert "CTranslate2 computes something else" in refused(export, [folder, tmp_path / "out"], capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_bad_input_is_one_line_and_writes_nothing(checkpoint, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    make_stock("T5").save_pretrained(tmp_path / "stock")
    _, folder = checkpoint()
    assert "no such file" in refused(export, ["/no/such/folder", out], capsys)
    line = refused(export, [tmp_path / "stock", out], capsys)
    assert "model_type 't5'" in line and "ct2-transformers-converter" in line and "convert_checkpoint.py" in line
    assert "int4" in refused(export, [folder, out, "--quantization", "int4"], capsys)
    train_tokenizer([" ".join(map(chr, range(200, 300)))], "symbol").save_pretrained(folder)
    assert "more than the model's `vocab_size`" in refused(export, [folder, out], capsys)
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert "tokenizer" in refused(export, [folder, out], capsys)
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    assert "pip install 'hf-xformer[export]'" in refused(export, [folder, out], capsys)
    assert not out.exists() and {path.name for path in tmp_path.iterdir()} == {"stock", "checkpoint"}


def test_a_folder_in_use_is_replaced_only_if_it_is_an_export(checkpoint, tmp_path, capsys):
    _, folder = checkpoint()
    out = tmp_path / "out"
    out.mkdir()
    export.main([str(folder), str(out)])
    (out / "source_vocabulary.json").touch()  # of an earlier export with two vocabularies
    assert f"{out}: the folder is not empty" in refused(export, [folder, out], capsys)
    export.main([str(folder), str(out), "--overwrite"])
    files = ["config.json", "decoding.json", "model.bin", "shared_vocabulary.json"]
    assert sorted(path.name for path in out.iterdir()) == files
    (out / "notes.txt").write_text("precious")
    assert "notes.txt" in refused(export, [folder, out, "--overwrite"], capsys)
    assert (out / "notes.txt").exists()
    assert "is not of one" in refused(export, [folder, folder, "--overwrite"], capsys)
    assert "a file of that name" in refused(export, [folder, out / "notes.txt"], capsys)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint", "out"}
