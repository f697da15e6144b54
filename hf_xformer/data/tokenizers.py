# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Trains tokenizers of four kinds, each a fast tokenizer that `AutoTokenizer` loads.

| model_type | a token is | decode(encode(text)) | good for |
|---|---|---|---|
| bpe | a run of bytes, merged by frequency; nothing is unknown | text | most languages and tasks |
| unigram | a piece chosen by likelihood | text, but for unseen characters and "▁" | morphology, small data |
| char | a character | text, but for unseen characters | spelling, names, normalisation |
| symbol | a whitespace-separated symbol, or else its characters | symbols, one space apart | phonemes, glosses, tags |

"text" here is the text in Unicode's normal form C, and in lower case if that is asked for. A text that spells out a
special token, such as `</s>`, is text: `encoding.py` splits it, and the vocabularies here hold it only as a special
token.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from ..errors import ArgumentError, DataError


SPECIAL_TOKENS = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"}
SPECIALS = list(SPECIAL_TOKENS.values())  # ids 0 to 3, as XformerConfig has them
UNKNOWN = SPECIAL_TOKENS["unk_token"]
END = SPECIAL_TOKENS["eos_token"]
WORD_START = "▁"
# Tokens for objectives of pretraining, which a text has in place of something else: T5's sentinels, BART's mask.
SENTINEL, MASK = "<extra_id_{}>", "<mask>"

Texts = Iterable[str]


def train_tokenizer(
    texts: Texts,
    model_type: str,
    vocab_size: int = 8000,
    lowercase: bool = False,
    min_frequency: int = 1,
    max_length: int = 2048,
    added_tokens: Sequence[str] = (),
    sentinels: int = 0,
    mask_token: bool = False,
) -> PreTrainedTokenizerFast:
    """
    Trains a tokenizer that ends every text with `</s>`; the same texts give the same tokenizer.

    Args:
        texts: Texts to learn from, read once.
        model_type: A key of `TRAINERS`.
        vocab_size: Largest number of entries, the four special tokens and all that are added included (unigram:
            exactly this number).
        lowercase: Whether to fold case; the decoded text is then in lower case too.
        min_frequency: Merges (bpe), characters (char) and symbols (symbol) seen fewer times are left out; unigram
            has none.
        max_length: Tokens, `</s>` included, that the tokenizer truncates to when asked to truncate.
        added_tokens: Tokens that are written into texts, such as "<bt>" or "<2de>", each one entry; spaces behind one
            belong to it.
        sentinels: Number of tokens `<extra_id_0>`, `<extra_id_1>`, ...
        mask_token: Whether to have a token `<mask>`.

    Raises:
        ArgumentError: The model type is unknown, `max_length` is below 2, an added token cannot be one, unigram has a
            `min_frequency`, or the vocabulary is too small for the characters or, for unigram, larger than the texts
            can fill.
        DataError: There is no text.
    """
    if model_type not in TRAINERS:
        raise ArgumentError(f"--model_type {model_type}: no such kind of tokenizer; there are {', '.join(TRAINERS)}")
    if model_type == "unigram" and min_frequency > 1:
        raise ArgumentError(f"--min_frequency {min_frequency} does nothing: unigram chooses pieces by likelihood")
    check_ends(max_length, added_tokens)
    if model_type == "bpe":
        check_spelling(added_tokens)
    form = [normalizers.NFC(), normalizers.Lowercase()] if lowercase else [normalizers.NFC()]
    if added_tokens:  # which nothing has to be learned of
        spelt = re.compile("|".join(rf"{re.escape(token)}\s*" for token in added_tokens))
        texts = (spelt.sub("", text) for text in texts)
    added = len(added_tokens) + sentinels + mask_token
    learnt = vocab_size - added
    try:
        tokenizer = TRAINERS[model_type](texts, normalizers.Sequence(form), learnt, min_frequency)
    except ArgumentError as error:  # the vocabulary has too few entries, or too many
        beside = f"--vocab_size {vocab_size} leaves {learnt} beside {added} added tokens: " if added else ""
        raise ArgumentError(f"{beside}{error}") from error
    return finish(tokenizer, max_length, added_tokens, sentinels, mask_token)


def finish(
    tokenizer: Tokenizer, max_length: int, added_tokens: Sequence[str], sentinels: int = 0, mask_token: bool = False
) -> PreTrainedTokenizerFast:
    """Returns a tokenizer of transformers that ends every text with `</s>`; see `train_tokenizer`."""
    tokenizer.add_special_tokens([*SPECIALS, *pretraining_tokens(sentinels, mask_token)])
    tokenizer.add_tokens([AddedToken(token, rstrip=True, normalized=False) for token in added_tokens])
    names = pretraining_tokens(sentinels)
    more: dict[str, Any] = {"extra_special_tokens": names} if names else {}
    more |= {"mask_token": MASK} if mask_token else {}
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", pair=f"$A {END} $B {END}", special_tokens=[(END, SPECIALS.index(END))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        padding_side="right",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        **SPECIAL_TOKENS,
        **more,
    )


def pretraining_tokens(sentinels: int, mask_token: bool = False) -> list[str]:
    """Returns the tokens for objectives of pretraining: so many sentinels, and a mask if one is wanted."""
    return [SENTINEL.format(number) for number in range(sentinels)] + [MASK] * mask_token


def check_spelling(added_tokens: Sequence[str]) -> None:
    """Refuses tokens that a byte-level decoder gives back as others: it takes their letters of Latin-1 for bytes."""
    for token in added_tokens:  # tokenizers issue 1392
        if (decoded := decoders.ByteLevel().decode([token])) != token:
            raise ArgumentError(
                f"--added_tokens {token!r}: a byte-level tokenizer decodes it as {decoded!r}; spell it in ASCII"
            )


def check_ends(max_length: int, added_tokens: Sequence[str]) -> None:
    """
    Checks the length to which texts are cut, and tokens that are to be added.

    Raises:
        ArgumentError: The length is below 2; or a token is empty, has spaces, is a special one or is there twice.
    """
    if max_length < 2:
        raise ArgumentError(f"--max_length {max_length} has no room for a token and {END}")
    for number, token in enumerate(added_tokens):
        if token.split() != [token] or token in SPECIALS or token in added_tokens[:number]:
            raise ArgumentError(
                f"--added_tokens {token!r}: give different tokens without spaces, and no special token"
            )


def train_bpe(texts: Texts, form: normalizers.Normalizer, vocab_size: int, min_frequency: int) -> Tokenizer:
    """Byte-level byte-pair encoding (Sennrich et al. 2016; Radford et al. 2019)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = form
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    check_room(vocab_size, len(alphabet), "byte values")
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=SPECIALS,
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(checked(texts), trainer)
    return tokenizer


def train_unigram(texts: Texts, form: normalizers.Normalizer, vocab_size: int, min_frequency: int) -> Tokenizer:
    """The unigram language model of Kudo (2018)."""
    del min_frequency
    tokenizer = Tokenizer(models.Unigram())
    # Metaspace alone would take a text's own first space for the one it puts there, and decode it away.
    tokenizer.normalizer = normalizers.Sequence([form, normalizers.Prepend(WORD_START)])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(replacement=WORD_START), apart()])
    tokenizer.decoder = decoders.Metaspace(replacement=WORD_START)
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size, special_tokens=SPECIALS, unk_token=UNKNOWN, show_progress=False
    )

    # The characters are checked before the trainer begins: without room for them it never ends.
    tokenizer.train_from_iterator(checked(texts, tokenizer.normalizer, vocab_size), trainer)
    if tokenizer.get_vocab_size() < vocab_size:
        raise ArgumentError(
            f"--vocab_size {vocab_size} is too large: these texts yield {tokenizer.get_vocab_size()} unigram entries"
        )
    pieces = json.loads(tokenizer.to_str())["model"]["vocab"]
    tokenizer.model = models.Unigram(in_fixed_order(pieces, vocab_size), unk_id=SPECIALS.index(UNKNOWN))
    return tokenizer


def in_fixed_order(pieces: list[list], vocab_size: int) -> list[tuple[str, float]]:
    """
    Puts a trained unigram vocabulary into an order that does not depend on a hash map, so that training is repeatable.

    The trainer keeps characters that the likelihood would drop, with the lowest score plus 0.0001 for each one before
    it in a random order. Here all of them get the lowest score, and scores are rounded. Characters come first, so that
    longer pieces are cut if the trainer has made too many.
    """
    specials, learned = pieces[: len(SPECIALS)], pieces[len(SPECIALS) :]
    lowest = min(score for _, score in learned)
    spread = 1e-4 * sum(len(piece) == 1 for piece, _ in learned)

    def fixed_score(piece: str, score: float) -> float:
        return round(lowest if len(piece) == 1 and score < lowest + spread else score, 6)

    scored = [(piece, fixed_score(piece, score)) for piece, score in learned]
    scored.sort(key=lambda entry: (len(entry[0]) > 1, -entry[1], entry[0]))
    return [*map(tuple, specials), *scored][:vocab_size]


def train_char(texts: Texts, form: normalizers.Normalizer, vocab_size: int, min_frequency: int) -> Tokenizer:
    """Byte-pair encoding without merges: one token a character, space included."""
    counts: Counter[str] = Counter()
    for text in checked(texts):
        counts.update(form.normalize_str(text))
    characters = frequent(counts, min_frequency)
    check_room(vocab_size, len(characters), "characters")
    tokenizer = Tokenizer(models.BPE(numbered([*SPECIALS, *characters], vocab_size), merges=[], unk_token=UNKNOWN))
    tokenizer.normalizer = form
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def train_symbol(texts: Texts, form: normalizers.Normalizer, vocab_size: int, min_frequency: int) -> Tokenizer:
    """One token a whitespace-separated symbol; an unknown symbol becomes its characters."""
    counts: Counter[str] = Counter()
    characters: Counter[str] = Counter()
    spaces = pre_tokenizers.WhitespaceSplit()
    for text in checked(texts):
        # Python's own `split` cuts at control characters, too.
        symbols = [symbol for symbol, _ in spaces.pre_tokenize_str(form.normalize_str(text))]
        counts.update(symbols)
        for symbol in symbols:
            characters.update(symbol)
    required = frequent(characters, min_frequency)
    check_room(vocab_size, len(required), "characters")
    entries = [*SPECIALS, *required, *frequent(counts, min_frequency)]
    # `ignore_merges` takes a known symbol whole. Without a decoder, tokens are joined by one space, as symbols should.
    model = models.BPE(numbered(entries, vocab_size), merges=[], unk_token=UNKNOWN, ignore_merges=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = form
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([spaces, apart(whole=True)])
    return tokenizer


def apart(whole: bool = False) -> pre_tokenizers.PreTokenizer:
    """
    Returns what keeps a spelt-out special token from the model, which would find it in its vocabulary: its first
    character is taken apart. With `whole`, only where the token is all that has been split off.
    """
    names = "|".join(re.escape(token.removeprefix("<")) for token in SPECIALS)
    pattern = rf"\A<(?=(?:{names})\z)" if whole else f"<(?={names})"
    return pre_tokenizers.Split(Regex(pattern), "isolated")


TRAINERS: dict[str, Callable[[Texts, normalizers.Normalizer, int, int], Tokenizer]] = {
    "bpe": train_bpe,
    "unigram": train_unigram,
    "char": train_char,
    "symbol": train_symbol,
}


def checked(texts: Texts, form: normalizers.Normalizer | None = None, vocab_size: int | None = None) -> Iterator[str]:
    """Yields texts, and raises after the last if they were empty or have more characters than `vocab_size` holds."""
    characters: set[str] = set()
    for text in texts:
        characters.update(form.normalize_str(text) if form else text)
        yield text
    if characters <= {" ", WORD_START}:
        raise DataError("there is no text to train a tokenizer on")
    if vocab_size is not None:
        # A space has no entry of its own: it is written as the word start.
        check_room(vocab_size, len(characters - {" "}), "characters")


def check_room(vocab_size: int, required: int, what: str) -> None:
    """Checks that a vocabulary holds so many characters beside the special tokens; raises ArgumentError if not."""
    if vocab_size < required + len(SPECIALS):
        raise ArgumentError(
            f"--vocab_size {vocab_size} is too small: {required} {what} and {len(SPECIALS)} special tokens "
            f"need {required + len(SPECIALS)}"
        )


def frequent(counts: Counter, min_frequency: int) -> list[str]:
    """Returns the keys that occur often enough: the most frequent first, equals in code-point order."""
    return [key for key, count in sorted(counts.items(), key=lambda e: (-e[1], e[0])) if count >= min_frequency]


def numbered(entries: list[str], limit: int | None = None) -> dict[str, int]:
    """Returns the first `limit` different entries, or all, with their ids."""
    return {entry: number for number, entry in enumerate(list(dict.fromkeys(entries))[:limit])}
