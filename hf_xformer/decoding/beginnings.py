# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Constraints on decoded texts: how they begin, words that they hold, a list that they are of."""

import copy
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase
from transformers.generation import LogitsProcessor

from ..checkpoints.languages import languages_of
from ..data.encoding import PLAIN_TEXT, TextEncoder, targets_own_vocabulary
from ..data.templates import target_tags
from ..errors import ArgumentError
from .forced_words import Word, Words
from .lengths import LIBRARY_LENGTH, longest_target
from .stopping import end_tokens
from .tally import Place, Tally, shortened


class TargetEncoder:
    """
    Turns targets, or their beginnings, into the tokens that the decoder writes, without its start and end tokens.

    Args:
        tokenizer: The target's.
        config: What `generate()` goes by.
        positions: Tokens that the decoder can read; None if there is no limit.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: GenerationConfig, positions: int | None = None):
        self.tokenizer, self.config, self.positions = tokenizer, config, positions
        self.allowed: AllowedTexts | None = None  # of which prefixes have to be beginnings
        self.tags = target_tags(tokenizer)  # of languages: a text begins with one, which is not part of it

    @cached_property
    def encoder(self) -> TextEncoder:
        """Encoder of targets, made when it is first needed. Its language is the one that texts are decoded into."""
        tokenizer, config = self.tokenizer, self.config
        if getattr(tokenizer, "tgt_lang", "") is None:
            codes = {token: code for code, token in getattr(tokenizer, "lang_code_to_token", {}).items()}
            for told in (config.forced_bos_token_id, config.decoder_start_token_id):
                token = None if told is None else tokenizer.convert_ids_to_tokens(told)
                if (language := codes.get(token, token)) in languages_of(tokenizer):
                    tokenizer = copy.deepcopy(tokenizer)  # which others may encode by
                    tokenizer.tgt_lang = language
                    break
        return TextEncoder(tokenizer, target=True)

    def __call__(self, text: str) -> list[int]:
        """Returns the tokens of a text, those before every text included."""
        ids = self.encoder([text])[0].ids
        ids = ids[: len(ids) - len(self.encoder.frame.suffix)]
        first = self.config.forced_bos_token_id
        return ids if first is None or ids[:1] == [first] else [first, *ids]

    def prompt(self, place: Place, misread: Tally) -> list[int]:
        """
        Returns the decoder's tokens up to the end of a text's prefix; none for an empty one.

        Args:
            misread: Counts prefixes that the tokenizer gives back as others.

        Raises:
            ArgumentError: It leaves no room for a text, begins none that is allowed, or no token says how texts start.
        """
        prefix, config = place.prefix, self.config
        if not prefix.strip():
            return []
        start = config.bos_token_id if config.decoder_start_token_id is None else config.decoder_start_token_id
        if start is None:
            raise ArgumentError("prefix: the model has no decoder_start_token_id, behind which a prefix would stand")
        ids = [start, *self(prefix)]
        has = f"prefix of {place.kind} {place.number:,} has {len(ids) - 1:,} tokens"
        if self.positions is not None and len(ids) > self.positions:
            raise ArgumentError(f"{has}, and the model {self.positions:,} positions: {shortened(prefix)}")
        most = config.max_length if config.max_new_tokens is None else None
        if most is not None and len(ids) >= most:
            raise ArgumentError(
                f"{has}, and max_length {most:,} leaves none to go on: {shortened(prefix)}; give max_new_tokens"
            )
        if self.allowed is not None and not self.allowed.follow(self.told(ids[1:])):
            raise ArgumentError(
                f"prefix of {place.kind} {place.number:,}, to the end of a token, begins none of the allowed texts: "
                f"{shortened(prefix)}"
            )
        self.tally_change(place, prefix, ids, misread)
        return ids

    def tally_change(self, place: Place, text: str, tokens: list[int], misread: Tally) -> None:
        """Counts a text whose tokens are another text's."""
        tag = next(filter(text.startswith, self.tags), "")
        if (read := self.reads(tokens)).strip() != text.removeprefix(tag).strip():
            misread.add(place, f"has {shortened(text)} as {shortened(read)}")

    def words(self, place: Place) -> Words:
        """
        Returns the words that a text must hold, as tokens.

        Raises:
            ArgumentError: A token is unknown.
        """
        return Words([self.word(word, number, place) for number, word in enumerate(place.words, 1)])

    def word(self, text: str, number: int, place: Place) -> Word:
        """Returns the tokens of one word; arguments as for messages."""
        first = self(text)
        encoded = self.encoder([PLAIN_TEXT, f"{PLAIN_TEXT} {text}"])
        alone, behind = (list(self.encoder.frame.inside(each.ids)) for each in encoded)
        later = behind[len(alone) :] if behind[: len(alone)] == alone else first
        if self.tokenizer.unk_token_id in (*first, *later):
            raise ArgumentError(
                f"force_words: word {number} of {place.kind} {place.number:,} has a character that the target's "
                f"tokenizer does not know: {shortened(text)}"
            )
        if not first or not later:
            raise ArgumentError(
                f"force_words: word {number} of {place.kind} {place.number:,} has no token: {shortened(text)}"
            )
        return Word(tuple(first), tuple(later))

    def check_words(self, place: Place, texts: Sequence[str], wordless: Tally) -> None:
        """Counts a source if one of its texts does not hold all of its words, as the tokenizer gives them back."""
        wanted = [self.reads(self(word)).strip() for word in place.words]
        lacking = [text for text in texts if not all(word in text for word in wanted)]
        if lacking:
            wordless.add(place, f"became {shortened(lacking[0])}")

    def reads(self, tokens: list[int]) -> str:
        """Returns the text of tokens, without those of languages."""
        return self.texts([tokens])[0]

    def texts(self, sequences: Iterable[list[int]]) -> list[str]:
        """Returns the texts of sequences of tokens, without those of languages."""
        if self.tags:
            tags = {*self.tags.values()}
            sequences = [[token for token in tokens if token not in tags] for tokens in sequences]
        return self.tokenizer.batch_decode(list(sequences), skip_special_tokens=True)

    @cached_property
    def size(self) -> int:
        """Number of the tokenizer's tokens of targets; a model may have more, as its vocabulary was padded."""
        return len(targets_own_vocabulary(self.tokenizer) or self.tokenizer)

    def unknown_in(self, tokens: list[int]) -> int:
        """Returns how many tokens no text has: those that the tokenizer lacks, and unknown ones if it has such."""
        tokenizer = self.tokenizer
        others = {tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}
        unknown = 0 if tokenizer.unk_token_id in others else tokens.count(tokenizer.unk_token_id)
        return unknown + sum(token >= self.size for token in tokens)

    def told(self, tokens: list[int]) -> list[int]:
        """Returns a text's tokens without that of a language which it was told, where not all texts are."""
        is_told = self.config.forced_bos_token_id is None and tokens[:1] and tokens[0] in self.tags.values()
        return tokens[1:] if is_told else tokens


class AllowedTexts(LogitsProcessor):
    """
    Allows only tokens that go on with one of some texts: a tree of their tokens, which a row is followed along.

    Args:
        texts: Those that are allowed.
        encoder: Makes tokens of them.
        say: Is told which of them the tokenizer gives back as others.

    Raises:
        ArgumentError: There is none, one is empty or longer than texts may become, or no token ends a text.
    """

    def __init__(self, texts: Sequence[str], encoder: TargetEncoder, say: Callable[[str], object]):
        ends, most = end_tokens(encoder.config), longest_target(encoder.config) or LIBRARY_LENGTH
        if not texts or not ends:
            raise ArgumentError(f"allowed: there is no {'text' if ends else 'end token, by which texts would end'}")
        self.tree: dict[int, Any] = {}
        self.encoder, distinct, misread = encoder, set(), Tally()
        for number, text in enumerate(texts, 1):
            tokens = encoder(text)
            if not text.strip() or len(tokens) >= most:
                limit = f"has {len(tokens):,} tokens, and the longest text {most:,} with its end: give max_new_tokens"
                limit += f" of {len(tokens) + 1:,} or more"
                raise ArgumentError(f"allowed text {number:,} {limit if text.strip() else 'is empty'}")
            encoder.tally_change(Place(number, text, "text"), text, tokens, misread)
            distinct.add(tuple(tokens))
            node = self.tree
            for token in tokens:
                node = node.setdefault(token, {})
            node |= {end: {} for end in ends}
        self.count = len(distinct)
        if misread.count:
            say(f"allowed texts that the target's tokenizer changes: {misread.count:,}, {misread}")

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """
        Returns the scores with those of other texts' tokens at minus infinity.

        Raises:
            ArgumentError: The generation config, or an option, forbids all tokens with which a text could go on.
        """
        allowed = torch.full_like(scores, -float("inf"))
        found = [list(self.follow(self.encoder.told(tokens))) for tokens in input_ids[:, 1:].tolist()]
        for row, index in enumerate(found):
            # A row that has ended, or a beam that never began a text, is left as it is: nobody goes by it.
            allowed[row, index or slice(None)] = scores[row, index or slice(None)]
        is_stuck = allowed.isneginf().all(dim=-1).tolist()
        if stuck := [row for row, index in enumerate(found) if index and is_stuck[row]]:
            begun = shortened(self.encoder.reads(input_ids[stuck[0]].tolist()))
            why = "an option or the generation config, such as min_length, forbids how texts go on"
            raise ArgumentError(f"allowed: {why} behind {begun}")
        return allowed

    def follow(self, tokens: Sequence[int]) -> dict[int, Any]:
        """Returns what may come behind tokens; nothing where they are no beginning of a text, or the whole of one."""
        node = self.tree
        for token in tokens:
            node = node.get(token, {})
        return node
