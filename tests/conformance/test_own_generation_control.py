# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""What steers `generate`: processors, constraints, streamers, stopping criteria, and drafts by another model."""

import copy
import itertools

import pytest
import torch
from generation_cases import ENDLESS, EOS, FULL_LENGTH, PAD, START, count_calls, source, variants
from small_models import SIZES, VARIANTS, make_model
from torch.testing import assert_close
from transformers import DynamicCache, EncoderDecoderCache, LogitsProcessor, StaticCache, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from hf_xformer.models.versions_xformer import CACHE


class Forbid(LogitsProcessor):
    """Forbids a token, and keeps the sequences that it was shown."""

    def __init__(self, token: int):
        self.token, self.shown = token, []

    def __call__(self, input_ids, scores):
        self.shown.append(input_ids.clone())
        return scores.index_fill(-1, torch.tensor([self.token]), -torch.inf)


def test_processors_see_the_target_and_decide_the_next_token():
    model, batch = make_model(), source()
    free = model.generate(**batch, **ENDLESS, max_new_tokens=6)
    processor = Forbid(int(free[0, 2]))
    output = model.generate(**batch, **ENDLESS, max_new_tokens=6, logits_processor=[processor])
    assert processor.token not in output
    assert torch.equal(output[0, :2], free[0, :2]) and not torch.equal(output[0], free[0])
    assert [shown.tolist() for shown in processor.shown] == [output[:, :length].tolist() for length in range(1, 7)]


def test_built_in_constraints_hold():
    model, batch = make_model(), source()
    options = {**FULL_LENGTH, "max_new_tokens": 12}
    for beams in (1, 3):
        repeated = model.generate(**batch, **options, num_beams=beams, no_repeat_ngram_size=2)
        for row in repeated.tolist():
            assert len(set(itertools.pairwise(row))) == len(row) - 1
        fresh = model.generate(**batch, **options, num_beams=beams, encoder_no_repeat_ngram_size=1)
        for row, words in zip(fresh.tolist(), batch["input_ids"].tolist(), strict=True):
            assert not set(row[1:]) & set(words)
    forced = model.generate(**batch, max_new_tokens=5, forced_bos_token_id=33, forced_eos_token_id=EOS)
    assert (forced[:, 1] == 33).all() and (forced[:, -1] == EOS).all()


def test_min_new_tokens_puts_the_end_off():
    model = make_model(use_final_logits_bias=True)
    model.lm_head.bias.data[EOS] = 1e4
    generated = model.generate(**source(), do_sample=False, max_new_tokens=9, min_new_tokens=4)
    assert generated.shape == (3, 6) and (generated[:, -1] == EOS).all() and not (generated[:, :-1] == EOS).any()


class Collect(BaseStreamer):
    def __init__(self):
        self.tokens, self.ended = [], False

    def put(self, value):
        self.tokens += value.flatten().tolist()

    def end(self):
        self.ended = True


def test_a_streamer_gets_every_token_in_order():
    streamer, model = Collect(), make_model()
    generated = model.generate(source()["input_ids"][:1], **ENDLESS, max_new_tokens=6, streamer=streamer)
    assert streamer.ended and streamer.tokens == generated[0].tolist()


class StopAt(StoppingCriteria):
    """Ends row `i` when the target has `lengths[i]` tokens."""

    def __init__(self, *lengths: int):
        self.lengths = torch.tensor(lengths)

    def __call__(self, input_ids, scores, **kwargs):
        return input_ids.shape[1] >= self.lengths


def test_stopping_criteria_end_each_row_on_its_own():
    model, batch = make_model(), source()
    free = model.generate(**batch, **ENDLESS, max_new_tokens=9)
    # The library pads finished rows only if there is an end token at all.
    options = {**ENDLESS, "eos_token_id": EOS}
    stopped = model.generate(**batch, **options, max_new_tokens=9, stopping_criteria=[StopAt(4, 7, 5)])
    assert stopped.shape == (3, 7)
    for row, length in enumerate([4, 7, 5]):
        assert stopped[row].tolist() == free[row, :length].tolist() + [PAD] * (7 - length)


def test_only_the_tokens_that_a_prefix_allows_are_generated():
    """Constrained decoding: the target must be a walk in a graph of words."""
    model, batch = make_model(), source()
    words = range(4, SIZES["vocab_size"])
    following = {word: [4 + (3 * word + step) % len(words) for step in (1, 5, 8)] for word in words}
    following[START] = [11, 30]
    seen = set()

    def allowed(row: int, prefix: torch.LongTensor) -> list[int]:
        seen.add((row, len(prefix)))
        return following[int(prefix[-1])]

    options = {"do_sample": False, "eos_token_id": None, "max_new_tokens": 8, "prefix_allowed_tokens_fn": allowed}
    generated = {beams: model.generate(**batch, **options, num_beams=beams) for beams in (1, 4)}
    for walks in generated.values():
        for row in walks.tolist():
            assert all(word in following[before] for before, word in itertools.pairwise(row))
    assert seen == set(itertools.product(range(3), range(1, 9)))
    assert not torch.equal(generated[1], model.generate(**batch, do_sample=False, eos_token_id=None, max_new_tokens=8))


def agreeing(model, wrong: int):
    return copy.deepcopy(model)


def right_at_times(model, wrong: int):
    assistant = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in assistant.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(8)))
    return assistant


def never_right(model, wrong: int):
    assistant = copy.deepcopy(model)
    assistant.lm_head.bias.data[wrong] = 1e4
    return assistant


def always_draft(assistant, tokens: int):
    assistant.generation_config.update(
        num_assistant_tokens=tokens, num_assistant_tokens_schedule="constant", assistant_confidence_threshold=0.0
    )


def unused(sequence: torch.LongTensor) -> int:
    return next(word for word in range(4, SIZES["vocab_size"]) if word not in sequence)


ASSISTANTS = {
    **{(name, other): pytest.mark.nightly for name in VARIANTS for other in (agreeing, right_at_times, never_right)},
    # Every kind of positions that a rejected draft could leave wrong, and blocks.
    **{(name, right_at_times): [] for name in ("rope-pre", "learned-pre", "relative-pre", "rope-pre-blocks")},
    **{("rope-pre-blocks", agreeing): [], ("relative-pre", never_right): []},
}


@pytest.mark.parametrize(
    ("overrides", "help_from", "drafts"),
    [
        pytest.param(
            VARIANTS[name], helper, 1 if helper is never_right else 4, marks=marks, id=f"{name}-{helper.__name__}"
        )
        for (name, helper), marks in ASSISTANTS.items()
    ],
)
def test_an_assistant_changes_the_number_of_forwards_and_nothing_else(overrides, help_from, drafts):
    model, ids, steps = make_model(**overrides, use_final_logits_bias=True), source()["input_ids"][:1], 15
    options = {**ENDLESS, "max_new_tokens": steps, "return_dict_in_generate": True, "output_logits": True}
    expected = model.generate(ids, **options)
    assistant = help_from(model, unused(expected.sequences))
    always_draft(assistant, drafts)
    counts = count_calls([model.lm_head])
    output = model.generate(ids, **options, assistant_model=assistant)
    assert torch.equal(output.sequences, expected.sequences)
    assert_close(output.logits, expected.logits, atol=1e-4, rtol=1e-4)
    # An accepted draft spares a forward; the last draft of a round comes with the model's own next token.
    fewest = -(-steps // (drafts + 1))
    possible = {agreeing: [fewest], right_at_times: range(fewest, steps), never_right: [steps]}
    assert counts[0] in possible[help_from]


@pytest.mark.parametrize("masked", [False, True], ids=["without a mask", "with a mask"])
@pytest.mark.parametrize("name", ["rope-pre", "learned-pre", "sinusoidal-post", "relative-pre"])
def test_an_assistant_reads_what_it_has_not_read_yet_up_to_the_last_position(name, masked):
    positions, drafts = 32, 4
    model, ids = make_model(**VARIANTS[name] | {"max_position_embeddings": positions}), source()["input_ids"][:1]
    options = {**ENDLESS, "max_new_tokens": positions}
    expected = model.generate(ids, **options)
    assistant = copy.deepcopy(model)
    always_draft(assistant, drafts)
    rounds, read = count_calls([model.lm_head]), []
    assistant.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    start = torch.tensor([[START]])
    told = {"decoder_input_ids": start, "decoder_attention_mask": torch.ones_like(start)} if masked else {}
    found = model.generate(ids, **options, **told, assistant_model=assistant)
    assert torch.equal(found, expected) and found.shape[1] == positions + 1
    assert rounds == [-(-positions // (drafts + 1))]
    # It has read all but the model's own token and its own last draft, in a round that was right; at first, nothing.
    assert max(read) == 2 and sum(read) < positions


@pytest.mark.parametrize("name", ["rope-pre", "learned-pre", "relative-pre"])
def test_a_text_goes_on_with_its_cache_though_no_mask_of_it_is_given(name):
    model, ids = make_model(**VARIANTS[name]), source()["input_ids"]
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    begun = model.generate(ids, **ENDLESS, **{CACHE: cache}, max_new_tokens=4)
    found = model.generate(ids, **ENDLESS, **{CACHE: cache}, decoder_input_ids=begun, max_new_tokens=5)
    assert torch.equal(found, model.generate(ids, **ENDLESS, max_new_tokens=9))


def test_what_cannot_draft_is_refused_in_a_line():
    model, ids = make_model(), source()["input_ids"][:1]
    assistant = copy.deepcopy(model)
    with pytest.raises(ValueError, match="`assistant_early_exit` is for models without an encoder"):
        model.generate(ids, assistant_early_exit=1)
    assert model.config.decoder_layers == 3
    with pytest.raises(ValueError, match="an assistant reads the source itself"):
        model.generate(inputs_embeds=model.get_input_embeddings()(ids), assistant_model=assistant)
    static = EncoderDecoderCache(*(StaticCache(config=model.config, max_cache_len=9) for _ in range(2)))
    with pytest.raises(ValueError, match="no draft is taken back from a static cache"):
        model.generate(ids, assistant_model=assistant, max_new_tokens=5, **{CACHE: static})
    assistant.generation_config.cache_implementation = "static"
    with pytest.raises(ValueError, match="from which no draft is taken back: set it to None"):
        model.generate(ids, assistant_model=assistant, max_new_tokens=5)


@variants
def test_prompt_lookup_equals_greedy(overrides):
    model, ids = make_model(**overrides), source()["input_ids"][:1]
    options = {**FULL_LENGTH, "max_new_tokens": 15}
    expected = model.generate(ids, **options)
    counts = count_calls([model.lm_head])
    assert torch.equal(model.generate(ids, **options, prompt_lookup_num_tokens=3), expected)
    # A random model repeats itself, which is what the lookup finds.
    assert counts[0] < 15


def test_an_accepted_draft_ends_at_the_end_token():
    model, ids = make_model(use_final_logits_bias=True), source()["input_ids"][:1]
    free = model.generate(ids, **ENDLESS, max_new_tokens=15)
    options = {**ENDLESS, "max_new_tokens": 15, "eos_token_id": int(free[0, 7])}
    for help_from in (agreeing, right_at_times, never_right):
        output = model.generate(ids, **options, assistant_model=help_from(model, unused(free)))
        assert torch.equal(output, free[:, :8])


@pytest.mark.slow
def test_assisted_sampling_follows_the_distribution_of_the_model():
    model, ids = make_model(vocab_size=6, use_final_logits_bias=True), torch.tensor([[5, 3, 4]])
    # Its only draft is accepted as often as the model would have drawn it, and replaced by the others' share else.
    assistant, drawn = never_right(model, 4), 75
    options = {"do_sample": True, "top_k": 0, "max_new_tokens": 2, "eos_token_id": None, "assistant_model": assistant}
    torch.manual_seed(9)
    first = torch.cat([model.generate(ids, **options)[:, 1] for _ in range(drawn)])
    expected = model(ids, decoder_input_ids=torch.tensor([[START]])).logits[0, -1].softmax(dim=-1)
    assert_close(first.bincount(minlength=6) / drawn, expected, atol=0.1, rtol=0)
