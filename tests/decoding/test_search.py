# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Our search against the library's loops: tokens, scores, and which options are left to the library."""

import warnings
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import VARIANTS, make_model, save_checkpoint
from small_runs import nightly
from small_stock_models import make_stock
from transformers import GenerationConfig, StoppingCriteriaList
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.generation import LogitsProcessorList, StoppingCriteria, TopKLogitsWarper
from transformers.modeling_outputs import BaseModelOutput

from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.decoding.decoder import Decoder
from hf_xformer.decoding.options import check_options
from hf_xformer.decoding.search import IMPLEMENTED, Search, is_implemented
from hf_xformer.decoding.stopping import StopTexts
from hf_xformer.models.versions_xformer import CACHE


# So many that texts end early and late.
ENDS = [1, *range(5, 53, 6)]
CONTROLS = {
    "min_length": 4,
    "min_new_tokens": 3,
    "repetition_penalty": 1.7,
    "no_repeat_ngram_size": 2,
    "forced_bos_token_id": 9,
    "forced_eos_token_id": 1,
    "suppress_tokens": [11, 12],
    "begin_suppress_tokens": [13],
    "exponential_decay_length_penalty": (2, 1.3),
    "renormalize_logits": True,
    "remove_invalid_values": True,
    "bad_words_ids": [[10, 11], [20]],
    "sequence_bias": [[[6], 3.0]],
}
OF_ENDS = ("min_length", "min_new_tokens", "exponential_decay_length_penalty")


@cache
def model_of(variant: str):
    return make_model(**VARIANTS[variant])


@st.composite
def cases(draw) -> dict:
    """Draws sources, padded on either side, and options of `generate()`."""
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    mask = mask.flip(1) if draw(st.booleans()) else mask
    beams = draw(st.sampled_from([1, 1, 3, 4, 8]))
    options = {
        "input_ids": torch.randint(5, 53, mask.shape, generator=generator) * mask,
        "attention_mask": mask,
        "num_beams": beams,
        "max_new_tokens": draw(st.sampled_from([1, 3, 8, 12])),
        "eos_token_id": draw(st.sampled_from([1, ENDS, [7, 8]])),
        "pad_token_id": draw(st.sampled_from([0, 1])),
        "use_cache": draw(st.sampled_from([True, True, False])),
    }
    if beams > 1:
        options |= {
            "length_penalty": draw(st.sampled_from([1.0, 0.0, 2.0, -1.0])),
            "early_stopping": draw(st.sampled_from([True, False, "never"])),
            "num_return_sequences": draw(st.sampled_from([1, beams])),
        }
    # The library's beams, where they are too few for what is to be returned, put -1 behind them without an end token.
    if options.get("num_return_sequences", 1) == 1 and draw(st.integers(0, 3)) == 0:
        options["eos_token_id"] = None
    # Without an end token some have nothing to go by.
    usable = [name for name in CONTROLS if options["eos_token_id"] or name not in OF_ENDS]
    options |= {name: CONTROLS[name] for name in draw(st.sets(st.sampled_from(usable), max_size=3))}
    if (width := draw(st.sampled_from([0, 0, 1, 3]))) > 0:
        prompt = torch.randint(5, 53, (len(lengths), width), generator=generator)
        prompt[:, 0] = 2
        options["decoder_input_ids"] = prompt
    return options


def log_probabilities_of(model, output, ends: list[int]) -> torch.Tensor:
    """Sums of the library's transition scores up to the first end token."""
    beams = getattr(output, "beam_indices", None)
    steps = model.compute_transition_scores(output.sequences, output.logits, beams, normalize_logits=True)
    is_end = torch.isin(output.sequences[:, -steps.shape[1] :], torch.tensor(ends))
    return steps.masked_fill(is_end.cumsum(-1) - is_end.long() > 0, 0.0).sum(dim=-1)


def check_equal(model, options: dict) -> None:
    """Holds the search against the library's loop."""
    options = options | {"return_dict_in_generate": True}
    with warnings.catch_warnings():  # some of the options contradict each other, and the library says so
        warnings.simplefilter("ignore")
        expected = model.generate(**options, output_scores=True, output_logits=True)
        found = model.generate(**options, custom_generate=Search(scores=True))
    assert torch.equal(found.sequences, expected.sequences)
    if options["num_beams"] > 1:
        torch.testing.assert_close(found.sequences_scores, expected.sequences_scores, atol=1e-4, rtol=1e-4)
    ends = options["eos_token_id"]
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    wanted = log_probabilities_of(model, expected, ends)
    torch.testing.assert_close(found.log_probabilities, wanted, atol=1e-3, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["rope-pre", *nightly(*(name for name in VARIANTS if name != "rope-pre"))])
@given(options=cases())
def test_tokens_and_scores_are_those_of_the_librarys_loop(variant, options):
    check_equal(model_of(variant), options)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("beams", [1, 4])
def test_every_kind_of_model_decodes_as_by_the_librarys_loop(variant, beams):
    mask = (torch.arange(9) < torch.tensor([9, 2, 5, 7, 1])[:, None]).long()
    ids = torch.randint(5, 53, (5, 9), generator=torch.Generator().manual_seed(3)) * mask
    options = {"num_beams": beams, "eos_token_id": ENDS, "pad_token_id": 0, "max_new_tokens": 12}
    check_equal(model_of(variant), {"input_ids": ids, "attention_mask": mask, **options})


class Token(StoppingCriteria):
    """Ends a text that has one of the last tokens of the vocabulary."""

    def __call__(self, input_ids, scores, **kwargs):
        return (input_ids > 40).any(dim=1)


@pytest.mark.parametrize("beams", [1, 4])
def test_criteria_end_texts_as_in_the_librarys_loop(beams):
    model, tokenizer = model_of("rope-pre"), train_tokenizer((" ".join(f"s{n}" for n in range(38)),), "symbol")
    ids = torch.randint(5, 53, (6, 7), generator=torch.Generator().manual_seed(5))
    options = {"num_beams": beams, "eos_token_id": [1], "pad_token_id": 0, "max_new_tokens": 12}
    for criterion in (StopTexts(tokenizer, ["s7", "s9", "s1"]), Token()):
        options["stopping_criteria"] = StoppingCriteriaList([criterion])
        expected = model.generate(ids, **options)
        assert torch.equal(model.generate(ids, custom_generate=Search(), **options), expected)
    # Some have ended by a string.
    free = {name: value for name, value in options.items() if name != "stopping_criteria"}
    assert not torch.equal(model.generate(ids, **free), expected)


@pytest.mark.parametrize("beams", [1, 3])
def test_the_decoder_computes_nothing_for_texts_that_have_ended(beams):
    model = model_of("rope-pre")
    ids = torch.randint(5, 53, (8, 9), generator=torch.Generator().manual_seed(7))
    options = {
        "num_beams": beams,
        "eos_token_id": ENDS,
        "pad_token_id": 0,
        "max_new_tokens": 12,
        "early_stopping": True,
    }
    alone, together = [], []
    for row in ids:
        with watched(model, alone):
            model.generate(row[None], **options)
        alone.append(None)
    with watched(model, together):
        model.generate(ids, custom_generate=Search(), **options)
    counts, steps = [], 0
    for each in alone:
        counts, steps = ([*counts, steps], 0) if each is None else (counts, steps + 1)
    assert min(counts) < max(counts)
    rows = [beams * sum(count > step for count in counts) for step in range(max(counts))]
    assert together == [len(ids), *rows[1:]]  # at first the beams of a text are one


class watched:
    """Notes how many rows each step of a model's decoder has."""

    def __init__(self, model, rows: list):
        self.model, self.rows = model, rows

    def __enter__(self):
        def note(module, args, output):
            self.rows.append(len(output.last_hidden_state))

        self.hook = self.model.get_decoder().register_forward_hook(note)

    def __exit__(self, *error):
        self.hook.remove()


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": True},
        {"prompt_lookup_num_tokens": 2},
        {"encoder_repetition_penalty": 1.2},
        {"encoder_no_repeat_ngram_size": 2},
        {"output_logits": True},
        {"output_attentions": True},
        {"cache_implementation": "static"},
        {"a_field_of_a_later_release": 1},
        {"logits_processor": LogitsProcessorList([TopKLogitsWarper(3)])},
        {"prefix_allowed_tokens_fn": lambda number, tokens: [1]},
        {"stopping_criteria": [Token()]},
        {"assistant_model": "a model"},
        {"streamer": "a streamer"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_the_search_has_not_is_left_to_the_library(options):
    model = model_of("rope-pre")
    assert is_implemented(model, model.generation_config, {})
    assert not is_implemented(model, check_options(model, options), options)
    name, value = next(iter(options.items()))
    if name in GenerationConfig().to_dict() or name == "a_field_of_a_later_release":
        assert not is_implemented(model, GenerationConfig(**{name: value}), {})


def test_every_field_that_the_search_goes_by_is_one_of_the_librarys():
    assert set(GenerationConfig().to_dict()) >= IMPLEMENTED - {"transformers_version"}


def test_stock_models_keep_the_librarys_loops():
    stock = make_stock("BART")
    assert not is_implemented(stock, GenerationConfig(), {})
    with pytest.raises(ValueError, match="`Search` is for the package's models, not for BartForConditionalGeneration"):
        stock.generate(torch.tensor([[5, 6]]), custom_generate=Search())


def test_what_the_search_has_not_is_refused_where_somebody_calls_it():
    with pytest.raises(ValueError, match="`Search` has no do_sample=True: leave `custom_generate` out"):
        model_of("rope-pre").generate(torch.tensor([[5, 6]]), custom_generate=Search(), do_sample=True)


@pytest.mark.parametrize(
    "options",
    [
        {"decoder_input_ids": torch.tensor([[0, 2]]), "decoder_attention_mask": torch.tensor([[0, 1]])},
        {CACHE: EncoderDecoderCache(DynamicCache(), DynamicCache())},
        {"prefix_allowed_tokens_fn": lambda number, tokens: [1]},
    ],
    ids=lambda options: next(reversed(options)),
)
@pytest.mark.parametrize("beams", [1, 3])
def test_arguments_that_the_search_does_not_take_are_refused_by_name(options, beams):
    name = next(reversed(options))
    with pytest.raises(ValueError, match=f"`Search` does not take `{name}`: leave `custom_generate` out"):
        model_of("rope-pre").generate(
            torch.tensor([[5, 6]]), custom_generate=Search(), num_beams=beams, max_new_tokens=4, **options
        )


@pytest.mark.parametrize("kind", [tuple, lambda x: BaseModelOutput(*x)], ids=["tuple", "output"])
@pytest.mark.parametrize("beams", [1, 4])
def test_memory_of_the_callers_is_decoded(beams, kind):
    model, generator = model_of("rope-pre"), torch.Generator().manual_seed(3)
    ids = torch.randint(5, 53, (5, 9), generator=generator)
    memory = kind((model.get_encoder()(ids).last_hidden_state,))
    options = {"attention_mask": torch.ones_like(ids), "num_beams": beams, "eos_token_id": ENDS, "pad_token_id": 0}
    found = model.generate(encoder_outputs=memory, custom_generate=Search(), **options)
    assert torch.equal(found, model.generate(ids, **options))


@pytest.mark.parametrize("beams", [1, 3])
def test_a_prompt_of_one_row_is_every_texts(beams):
    tokenizer = train_tokenizer((" ".join(f"s{n}" for n in range(38)),), "symbol")
    texts, prompt = ["s1 s2 s3", "s4", "s5 s6"], torch.tensor([[2, 6, 7]])
    decoder = Decoder(model_of("rope-pre"), tokenizer, tokenizer, num_beams=beams, decoder_input_ids=prompt)
    alone = [next(decoder.decode([text])) for text in texts]
    assert list(decoder.decode(texts)) == alone


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 4, "num_return_sequences": 2},
        {"stop_strings": ["A"]},
        {"max_new_tokens": 5},
        {"scores": True},
    ],
    ids="-".join,
)
def test_a_checkpoint_is_decoded_by_the_search(options, tmp_path):
    save_checkpoint(tmp_path)
    assert Decoder.from_pretrained(str(tmp_path), device="cpu", **options).searches
    assert not Decoder.from_pretrained(str(tmp_path), device="cpu", do_sample=True).searches
