# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Batches by tokens: what shares one, what is read ahead, results as they come, and memory that ends."""

import re
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import make_model

from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.decoding import batches
from hf_xformer.decoding.batches import FIRST_WINDOW, SHORTEST, BatchSize, bytes_of, windows
from hf_xformer.decoding.decoder import Decoder


SYMBOLS = [f"s{number}" for number in range(38)]
ENDS = [1, *range(5, 53, 6)]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer((" ".join(SYMBOLS),), "symbol")


@pytest.fixture(scope="module")
def model():
    made = make_model()
    made.generation_config.update(eos_token_id=ENDS, max_new_tokens=8)
    return made


def make_texts(count: int, longest: int = 9) -> list[str]:
    random = Random(count)
    return [" ".join(random.choices(SYMBOLS, k=random.randint(1, longest))) for _ in range(count)]


@pytest.mark.slow
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=200), st.integers(1, 8), st.none() | st.integers(1, 70))
def test_batches_hold_every_source_once_within_the_budget_and_the_first_comes_first(lengths, beams, sources):
    size = BatchSize(sources, beams, CPU)
    found = size.batches(dict(enumerate(lengths)), make_model().config, None)
    assert sorted(i for batch in found for i in batch) == list(range(len(lengths)))
    assert [min(batch) for batch in found] == sorted(min(batch) for batch in found)
    for batch in found:
        padded = max(max(lengths[i] for i in batch), SHORTEST) * len(batch) * beams
        assert len(batch) == 1 or (padded <= batches.CPU_TOKENS if sources is None else len(batch) <= sources)
    # No two could have shared one: the next longest source would not fit.
    spans = sorted((sorted((lengths[i] for i in batch), reverse=True) for batch in found), reverse=True)
    for batch, after in zip(spans, spans[1:], strict=False):
        full = max(batch[0], SHORTEST) * (len(batch) + 1) * beams > batches.CPU_TOKENS
        assert batch[-1] >= after[0] and (full if sources is None else len(batch) == sources)


@given(st.integers(0, 20000), st.integers(1, 5000))
def test_windows_grow_from_few_texts_to_many_and_keep_their_order(count, last):
    found = list(windows(range(count), last))
    assert [i for window in found for i in window] == list(range(count))
    whole = [len(window) for window in found[:-1]]
    assert whole == [min(FIRST_WINDOW * 2**i, last) for i in range(len(whole))]


@pytest.mark.slow
@pytest.mark.parametrize("beams", [1, 3])
def test_the_first_results_are_there_before_most_texts_are_read_and_before_their_neighbours_are_decoded(
    beams, model, tokenizer, monkeypatch
):
    monkeypatch.setattr(batches, "CPU_TOKENS", 16 * SHORTEST * beams)
    texts, taken, sizes = make_texts(150), [], []
    decoder = Decoder(model, tokenizer, tokenizer, num_beams=beams)
    generate = decoder.generate
    monkeypatch.setattr(decoder, "generate", lambda sources: sizes.append(len(sources)) or generate(sources))
    results = decoder.decode(text for text in texts if taken.append(text) is None)
    first = next(results)
    assert len(taken) == FIRST_WINDOW and sizes == [16]
    whole = Decoder(model, tokenizer, tokenizer, batch_size=150, num_beams=beams)
    assert [first, *results] == list(whole.decode(texts))


@pytest.mark.slow
@given(st.lists(st.integers(0, 12), min_size=1, max_size=30), st.sampled_from([1, 3]), st.sampled_from([2, 16, 512]))
def test_a_result_depends_on_its_text_alone(model, tokenizer, lengths, beams, fitting):
    random = Random(sum(lengths))
    texts = [" ".join(random.choices(SYMBOLS, k=length)) for length in lengths]
    options = {"num_beams": beams, "num_return_sequences": beams, "scores": True, "max_new_tokens": 8}
    decoder = Decoder(model, tokenizer, tokenizer, **options)
    decoder.batch_size.tokens = fitting * SHORTEST * beams
    together = list(decoder.decode(texts))
    for number in random.sample(range(len(texts)), min(3, len(texts))):
        alone = next(Decoder(model, tokenizer, tokenizer, **options).decode([texts[number]]))
        assert [each.text for each in alone] == [each.text for each in together[number]]
        assert [each.score for each in alone] == pytest.approx([each.score for each in together[number]], abs=2e-4)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] data. DefaultCPUAllocator: can't allocate memory: you tried"),
    MemoryError("std::bad_alloc"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "batch_size"),
    [*((error, 40) for error in OUT_OF_MEMORY), (OUT_OF_MEMORY[0], None)],
    ids=lambda value: str(value)[:16],
)
def test_batches_are_halved_where_memory_ends_which_is_said_once(error, batch_size, model, tokenizer):
    """The encoder refuses more than 11 rows in the words of the libraries; no CPU's memory ends so soon."""
    texts, said, sizes = make_texts(200), [], []

    def refuse(module, args, kwargs):
        sizes.append(len(kwargs["input_ids"]))
        if sizes[-1] > 11:
            raise error

    plain = list(Decoder(model, tokenizer, tokenizer).decode(texts))
    hook = model.get_encoder().register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        decoder = Decoder(model, tokenizer, tokenizer, batch_size=batch_size, say=said.append)
        assert list(decoder.decode(texts)) == plain
    finally:
        hook.remove()
    (line,) = [each for each in said if "memory" in each]  # a random model may write unknown tokens, too
    assert re.fullmatch(r"memory ended with \d+ sources of \d+ tokens: batches are halved", line)
    assert [size > 11 for size in sizes] == sorted((size > 11 for size in sizes), reverse=True)


def test_memory_that_does_not_hold_one_source_and_other_errors_are_errors(model, tokenizer):
    for error in (torch.OutOfMemoryError("CUDA out of memory. "), RuntimeError("a bug"), ValueError("another")):

        def fail(module, args, error=error):
            raise error

        hook = model.get_encoder().register_forward_pre_hook(fail)
        try:
            with pytest.raises(type(error), match=str(error)):
                list(Decoder(model, tokenizer, tokenizer, say=str).decode(make_texts(8)))
        finally:
            hook.remove()


def test_the_estimate_of_a_sources_memory_is_above_what_its_tensors_take():
    model = make_model(d_model=64, vocab_size=2000)
    tensors = []
    hooks = [
        module.register_forward_hook(
            lambda m, args, output: tensors.append(output) if torch.is_tensor(output) else None
        )
        for module in (*model.get_encoder().modules(), model.lm_head)
    ]
    model.generate(torch.full((1, 50), 7), max_new_tokens=1)
    for hook in hooks:
        hook.remove()
    largest = max(each.numel() * each.element_size() for each in tensors)
    cache = 4 * 2 * 3 * 64 * (50 + 1)  # keys and values in single precision, of three layers
    assert bytes_of(model.config, 50, 1, beams=1) > largest + cache
