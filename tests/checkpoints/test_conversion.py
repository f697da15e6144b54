# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Conversions compute what their stock models do; what cannot be converted is refused by name."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_runs import has_code
from small_stock_models import (
    BART_SIZES,
    GEMMA_DECODER,
    GEMMA_STACK,
    STOCK,
    T5_SIZES,
    make_stock,
    make_stock_batch,
    measure,
)
from torch.testing import assert_close
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    BlenderbotConfig,
    GenerationConfig,
    M2M100Config,
    M2M100Tokenizer,
    MBart50Tokenizer,
    MBartConfig,
    MBartTokenizer,
    NllbTokenizer,
    PreTrainedConfig,
    T5GemmaConfig,
    UMT5Config,
)

from hf_xformer.checkpoints.conversion import FAMILIES, convert_config, convert_model
from hf_xformer.commands import convert, generate
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.decoding.decoder import Decoder
from hf_xformer.decoding.tally import Place
from hf_xformer.errors import ArgumentError


families = pytest.mark.parametrize("name", STOCK)


@families
def test_logits_gradients_and_tokens_equal_the_stock_models(name):
    found = measure(name)
    assert found.holds, found


@families
def test_the_tokens_compared_are_not_all_alike(name):
    stock = make_stock(name)
    batch = make_stock_batch(stock.config)
    tokens = stock.generate(batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=15)
    assert len(tokens.unique()) > 15 and len(tokens.unique(dim=0)) == len(tokens)


def watch(config: PreTrainedConfig) -> set[str]:
    """The names of the fields that are read from now on, one's own and nobody's else."""
    read = set()

    class Watched(type(config)):
        def __getattribute__(self, name: str):
            read.add(name)
            return super().__getattribute__(name)

    config.__class__ = Watched
    return read


# What makes no difference to the logits: it is of training, of other heads, of generation and there in its own
# config, of decoders without an encoder, or read by another name.
NOT_COMPUTED = {
    *("encoder_layerdrop", "decoder_layerdrop", "classifier_dropout", "initializer_factor"),
    *("forced_eos_token_id", "is_decoder", "feed_forward_proj"),
}
# T5Gemma has these for its stacks or for its whole, and does not read the other.
NOT_COMPUTED_WHOLE = {"classifier_dropout_rate", "is_encoder_decoder", "vocab_size"}
NOT_COMPUTED_STACK = {
    *("is_decoder", "attention_dropout", "tie_word_embeddings", "initializer_range", "use_cache", "sliding_window"),
    *("eos_token_id", "bos_token_id"),
}


@families
def test_every_field_of_a_stock_config_is_read_or_known_not_to_matter(name):
    config = STOCK[name]()
    stacks = [config.encoder, config.decoder] if config.model_type == "t5gemma" else []
    owned = [(set(type(each).__annotations__), watch(each)) for each in (*stacks, config)]
    FAMILIES[config.model_type].fields(config)
    known = [NOT_COMPUTED_STACK] * len(stacks) + [NOT_COMPUTED_WHOLE if stacks else NOT_COMPUTED]
    for (fields, read), unread in zip(owned, known, strict=True):
        assert fields - read <= unread


GEMMA = {"encoder": GEMMA_STACK, "decoder": GEMMA_DECODER}


def gemma(**encoder) -> T5GemmaConfig:
    """A T5Gemma of which the encoder is changed."""
    return T5GemmaConfig(**{**GEMMA, "encoder": {**GEMMA_STACK, **encoder}})


@pytest.mark.parametrize(
    ("field", "value"),
    {
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "attention_bias": True,
        "hidden_size": 48,
        "num_key_value_heads": 4,
        "head_dim": 12,
        "hidden_activation": "silu",
        "rms_norm_eps": 1e-4,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
        "max_position_embeddings": 100,
        "query_pre_attn_scalar": 8,
        "pad_token_id": 3,
    }.items(),
)
def test_a_t5gemma_that_xformer_cannot_express_is_refused_by_field_and_value(field, value):
    with pytest.raises(ArgumentError) as refusal:
        convert_config(gemma(**{field: value}))
    assert f"`encoder.{field}={value!r}`" in str(refusal.value)


def test_layers_that_slide_reach_the_config_with_their_window():
    layers = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 5}
    decoder = {**GEMMA_DECODER, "layer_types": ["sliding_attention"] * 3, "sliding_window": 5}
    fields = FAMILIES["t5gemma"].fields(T5GemmaConfig(encoder={**GEMMA_STACK, **layers}, decoder=decoder))
    assert fields["encoder_layer_types"] == layers["layer_types"] and fields["block_size"] == 5
    assert fields["decoder_layer_types"] == decoder["layer_types"]
    with pytest.raises(ArgumentError, match=r"encoder.sliding_window=6.*decoder.sliding_window=5"):
        layers["sliding_window"] = 6
        convert_config(T5GemmaConfig(encoder={**GEMMA_STACK, **layers}, decoder=decoder))


def test_an_unknown_model_type_is_refused_with_the_known_ones():
    with pytest.raises(ArgumentError, match="'blenderbot'.*bart, mbart, marian.*t5gemma"):
        convert_config(BlenderbotConfig())


def test_embeddings_that_are_not_tied_stay_apart():
    torch.manual_seed(0)
    stock = AutoModelForSeq2SeqLM.from_config(BartConfig(**BART_SIZES, tie_word_embeddings=False)).eval()
    model, batch = convert_model(stock), make_stock_batch(stock.config)
    config = model.config
    assert (config.encoder_vocab_size, config.vocab_size, config.tie_word_embeddings) == (53, 53, False)
    assert_close(model(**batch).logits, stock(**batch).logits, atol=1e-5, rtol=0)


def test_a_logits_bias_of_zeros_becomes_no_parameter():
    stock = make_stock("BART")
    assert convert_model(stock).lm_head.bias.abs().max() > 0
    stock.final_logits_bias.zero_()
    assert convert_model(stock).lm_head.bias is None


def test_sinusoids_that_are_not_xformers_are_refused():
    stock = make_stock("Pegasus")
    stock.model.decoder.embed_positions.weight[3] += 1
    with pytest.raises(ArgumentError, match="decoder.positions.table"):
        convert_model(stock)


@pytest.mark.parametrize("is_said", [True, False], ids=["said", "denied"])
@pytest.mark.parametrize("is_own", [True, False], ids=["own", "tied"])
def test_an_umt5_is_scaled_as_the_stock_one_is(is_said, is_own):
    """Its weights do not decide it, but up to transformers 5.23, which scales every one."""
    torch.manual_seed(0)
    stock = AutoModelForSeq2SeqLM.from_config(UMT5Config(**T5_SIZES, tie_word_embeddings=is_said)).eval()
    if is_own:
        stock.lm_head.weight = torch.nn.Parameter(torch.randn_like(stock.lm_head.weight))
    model, batch = convert_model(stock), make_stock_batch(stock.config)
    is_scaled = getattr(stock.config, "scale_decoder_outputs", not is_own)
    assert (model.config.tie_word_embeddings, model.config.scale_decoder_outputs) == (not is_own, is_scaled)
    factor = 1.0 if hasattr(stock.config, "scale_decoder_outputs") or is_scaled else 32**-0.5
    assert_close(model(**batch).logits * factor, stock(**batch).logits, atol=1e-5, rtol=1e-5)


def test_values_that_are_not_finite_are_refused_by_tensor():
    stock = make_stock("T5")
    stock.decoder.final_layer_norm.weight.data[3] = float("nan")
    with pytest.raises(ArgumentError, match=r"1 tensors.*not finite.*model.decoder.norm.weight"):
        convert_model(stock)


def test_a_model_without_an_output_layer_is_refused():
    with pytest.raises(ArgumentError, match="BartModel has no output layer"):
        convert_model(make_stock("BART").model)


def test_a_tensor_without_a_counterpart_is_refused():
    stock = make_stock("T5")
    stock.encoder.block[0].adapter = torch.nn.Linear(32, 32, bias=False)
    with pytest.raises(ArgumentError, match=r"1 tensors.*layers.0.adapter.weight"):
        convert_model(stock)


TEXTS = ("A B C D", "E F", "G H A B C D E F")


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([" ".join("ABCDEFGHIJKLMNOPQRSTUVWXYZ") + " " + " ".join("abcdefghijklmno")], "symbol")


@pytest.fixture(params=["BART", "T5 v1.1"])
def checkpoint(request, tokenizer, tmp_path):
    """A stock model and its tokenizer in a folder."""
    stock = make_stock(request.param)
    assert len(tokenizer) <= stock.config.vocab_size
    stock.generation_config.max_length, stock.generation_config.num_beams = 14, 3
    stock.save_pretrained(tmp_path / "stock")
    tokenizer.save_pretrained(tmp_path / "stock")
    return tmp_path / "stock"


def load(folder, **options):
    """A model with nothing missing or unexpected, and its tokenizer."""
    model, info = AutoModelForSeq2SeqLM.from_pretrained(folder, output_loading_info=True, **options)
    assert not any(info.values()), info
    return model, AutoTokenizer.from_pretrained(folder)


@pytest.mark.slow
def test_a_converted_folder_loads_and_decodes_as_the_stock_one(checkpoint, tmp_path, capsys):
    out = tmp_path / "out"
    convert.main([str(checkpoint), str(out)])
    assert has_code(out)
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{out}: 0.1 M parameters, float32") and "tokenizer" not in captured.err
    (stock, before), (model, after) = load(checkpoint), load(out)
    assert type(model).__name__ == "XformerForSeq2SeqLM"
    assert after.get_vocab() == before.get_vocab()
    ignored = {"_from_model_config", "transformers_version"}
    generation = [
        {
            name: value
            for name, value in GenerationConfig.from_pretrained(folder).to_dict().items()
            if name not in ignored
        }
        for folder in (checkpoint, out)
    ]
    assert generation[0] == generation[1] and generation[1]["num_beams"] == 3
    batch = make_stock_batch(stock.config)
    assert_close(model(**batch).logits, stock(**batch).logits, atol=1e-5, rtol=0)
    (tmp_path / "input.txt").write_text("\n".join(TEXTS) + "\n")
    generate.main([str(out), "--input", str(tmp_path / "input.txt"), "--device", "cpu"])
    expected = [stock.generate(**before(text, return_tensors="pt")) for text in TEXTS]
    printed = capsys.readouterr().out.splitlines()
    assert printed == [before.decode(tokens[0], skip_special_tokens=True) for tokens in expected]
    assert len(set(printed)) == len(TEXTS)


def test_shards_and_sixteen_bits_stay_what_they_are(checkpoint, tmp_path):
    stock = AutoModelForSeq2SeqLM.from_pretrained(checkpoint, dtype=torch.bfloat16)
    stock.save_pretrained(checkpoint, max_shard_size="40KB")
    assert len(list(checkpoint.glob("*.safetensors"))) > 1
    convert.main([str(checkpoint), str(tmp_path / "out")])
    weights = load_file(tmp_path / "out/model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    model, _ = load(tmp_path / "out")
    assert model.dtype == torch.bfloat16
    for ours, theirs in zip(model.state_dict().values(), convert_model(stock).state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_half_precision_t5_is_half_precision_throughout(tmp_path):
    """The library keeps some of its weights in float32, which the rest of an Xformer would not multiply with."""
    make_stock("T5").half().save_pretrained(tmp_path / "stock")
    convert.main([str(tmp_path / "stock"), str(tmp_path / "out")])
    assert {tensor.dtype for tensor in load_file(tmp_path / "out/model.safetensors").values()} == {torch.float16}


def rewrite(folder, change) -> None:
    """Edits the weights of a checkpoint in place."""
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_sinusoids_may_be_missing_from_a_pegasus_and_nothing_else(tmp_path, capsys):
    stock = make_stock("Pegasus")
    stock.save_pretrained(tmp_path / "stock")
    rewrite(
        tmp_path / "stock",
        lambda weights: [weights.pop(f"model.{s}coder.embed_positions.weight") for s in ("en", "de")],
    )
    convert.main([str(tmp_path / "stock"), str(tmp_path / "out")])
    batch = make_stock_batch(stock.config)
    assert_close(load_model(tmp_path / "out")(**batch).logits, stock(**batch).logits, atol=1e-5, rtol=0)
    rewrite(tmp_path / "stock", lambda weights: weights.pop("model.encoder.layer_norm.bias"))
    refused([str(tmp_path / "stock"), str(tmp_path / "other")], "model.encoder.layer_norm.bias", capsys)


def test_learned_positions_may_not_be_missing(tmp_path, capsys):
    make_stock("BART").save_pretrained(tmp_path / "stock")
    rewrite(tmp_path / "stock", lambda weights: weights.pop("model.encoder.embed_positions.weight"))
    refused([str(tmp_path / "stock"), str(tmp_path / "out")], "model.encoder.embed_positions.weight", capsys)


def load_model(folder):
    return AutoModelForSeq2SeqLM.from_pretrained(folder)


def refused(argv: list[str], said: str, capsys) -> None:
    """One line that says so, and exit status 2."""
    with pytest.raises(SystemExit) as stop:
        convert.main(argv)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert stop.value.code == 2 and said in line


def test_t5s_own_checkpoints_hold_a_table_that_nobody_reads(tmp_path):
    make_stock("T5").save_pretrained(tmp_path / "stock")
    unread = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    rewrite(tmp_path / "stock", lambda weights: weights.update({unread: torch.ones(8, 5)}))
    convert.main([str(tmp_path / "stock"), str(tmp_path / "out")])


def test_generation_fields_of_an_old_config_are_kept(tmp_path):
    """Before there was a generation config, its fields stood among the model's."""
    folder = tmp_path / "stock"
    make_stock("Marian, shared vocabulary").save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    old = {"num_beams": 6, "max_length": 77, "bad_words_ids": [[46]], "length_penalty": 0.8}
    (folder / "config.json").write_text(json.dumps({**config, **old, "normalize_before": False}))
    convert.main([str(folder), str(tmp_path / "out")])
    kept = GenerationConfig.from_pretrained(tmp_path / "out").to_dict()
    assert {name: kept[name] for name in old} == old
    assert (kept["forced_eos_token_id"], kept["decoder_start_token_id"], kept["pad_token_id"]) == (1, 46, 46)


def test_a_folder_in_use_is_refused_and_overwritten_when_asked(checkpoint, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("precious")
    refused([str(checkpoint), str(out)], f"{out}: the folder is not empty; --overwrite", capsys)
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    convert.main([str(checkpoint), str(out), "--overwrite"])
    assert (out / "notes.txt").read_text() == "precious" and (out / "model.safetensors").exists()
    (out / "target_tokenizer").mkdir()
    convert.main([str(checkpoint), str(out), "--overwrite"])
    assert not (out / "target_tokenizer").exists()  # an earlier checkpoint's
    refused([str(checkpoint), str(checkpoint), "--overwrite"], str(checkpoint), capsys)
    refused([str(checkpoint), str(out / "notes.txt"), "--overwrite"], "notes.txt", capsys)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["/no/such/folder", "{out}"], "/no/such/folder"),
        (["{stock}", "{out}", "--tgt_lang", "ro_RO"], "--tgt_lang ro_RO"),
        (["{stock}", "{out}", "--src_lang", "A"], "--src_lang A"),
        (["{stock}", "{out}", "--tgt_lang", "<pad>"], "--tgt_lang <pad>"),
        (["{stock}", "{out}", "--overwrit"], "--overwrit"),
        (["{stock}"], "out"),
    ],
)
@pytest.mark.parametrize("checkpoint", ["BART"], indirect=True)
def test_bad_options_are_one_line_and_write_nothing(argv, said, checkpoint, tmp_path, capsys):
    out = tmp_path / "out"
    refused([word.format(stock=checkpoint, out=out) for word in argv], said, capsys)
    assert not out.exists()


def test_a_checkpoint_that_is_refused_for_its_config_is_not_read(tmp_path, capsys):
    T5GemmaConfig().save_pretrained(tmp_path / "stock")
    refused([str(tmp_path / "stock"), str(tmp_path / "out")], "encoder.attn_logit_softcapping=50.0", capsys)


@pytest.mark.parametrize("checkpoint", ["BART"], indirect=True)
def test_a_checkpoint_without_a_tokenizer_is_converted_and_said_to_have_none(checkpoint, tmp_path, capsys):
    for path in checkpoint.glob("tokenizer*"):
        path.unlink()
    convert.main([str(checkpoint), str(tmp_path / "out")])
    lines = [line for line in capsys.readouterr().err.splitlines() if "tokenizer" in line]
    assert lines == [f"{checkpoint} has no tokenizer: {tmp_path / 'out'} has none either"]
    assert not list((tmp_path / "out").glob("tokenizer*"))
    refused([str(checkpoint), str(tmp_path / "other"), "--src_lang", "en_XX"], "--src_lang en_XX", capsys)


def m2m100_tokenizer(folder) -> M2M100Tokenizer:
    """It has no default vocabulary, as the others do."""
    sentencepiece = pytest.importorskip("sentencepiece")
    prefix, vocabulary = folder / "pieces", folder / "vocabulary.json"
    options = {"vocab_size": 12, "hard_vocab_limit": False, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(TEXTS * 9), model_prefix=str(prefix), **options)
    pieces = [*("<s>", "<pad>", "</s>", "<unk>"), "▁", *"ABCDEFGH"]
    vocabulary.write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    return M2M100Tokenizer(str(vocabulary), f"{prefix}.model")


MULTILINGUAL = {
    # The decoder starts with the language, or it starts with another token and says the language first.
    "mBART": (MBartConfig, lambda folder: MBartTokenizer(), "en_XX", "ro_RO", None, 0),
    "mBART-50": (MBartConfig, lambda folder: MBart50Tokenizer(), "en_XX", "ro_RO", 2, 1),
    "NLLB": (M2M100Config, lambda folder: NllbTokenizer(), "eng_Latn", "fra_Latn", 2, 1),
    "M2M100": (M2M100Config, m2m100_tokenizer, "en", "fr", 2, 1),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "make_tokenizer", "source", "target", "start", "place"), MULTILINGUAL.values(), ids=MULTILINGUAL
)
def test_languages_are_set_in_tokenizer_and_generation(
    config, make_tokenizer, source, target, start, place, tmp_path, capsys
):
    tokenizer, stock, out = make_tokenizer(tmp_path), tmp_path / "stock", tmp_path / "out"
    stock.mkdir()
    tokenizer.save_pretrained(stock)
    tokens = {"pad_token_id": 1, "eos_token_id": 2, "bos_token_id": 0, "decoder_start_token_id": start}
    sizes = {**BART_SIZES, **tokens, "forced_eos_token_id": 2, "vocab_size": 300}
    AutoModelForSeq2SeqLM.from_config(config(**sizes)).save_pretrained(stock)
    for wrong in ("xx_YY", tokenizer.eos_token):
        refused([str(stock), str(out), "--tgt_lang", wrong], f"--tgt_lang {wrong}", capsys)
    convert.main([str(stock), str(tmp_path / "undecided")])
    assert "--tgt_lang says which one" in capsys.readouterr().err
    # The other way round than by default, so that it shows.
    convert.main([str(stock), str(out), "--src_lang", target, "--tgt_lang", source])
    model, converted = load(out)
    assert (converted.src_lang, converted.tgt_lang) == (target, source)
    words = getattr(tokenizer, "lang_code_to_token", {})
    from_id, to_id = (tokenizer.convert_tokens_to_ids(words.get(code, code)) for code in (target, source))
    assert from_id in converted("A")["input_ids"] and to_id in converted(text_target="A")["input_ids"]
    generated = model.generate(**converted("A", return_tensors="pt"), max_new_tokens=3)
    assert generated[0, place] == to_id
    assert model.config.decoder_start_token_id == (to_id if place == 0 else start)
    # And another way when texts are decoded.
    told = Decoder(model, converted, converted, src_lang=source, tgt_lang=target, max_new_tokens=3)
    read = told.encode(Place(1, "A"), told.new_report())
    assert to_id in read and from_id not in read
    generated = model.generate(torch.tensor([read]), **told.languages.options, max_new_tokens=3)
    assert generated[0, place] == from_id and len(list(told.decode(["A"]))) == 1
    with pytest.raises(ArgumentError, match="xx_YY: the tokenizer has no such language"):
        Decoder(model, converted, converted, tgt_lang="xx_YY")
