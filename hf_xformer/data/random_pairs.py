# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Rows to token ids at random, whenever they are read: pairs with noise, and pairs that an objective makes."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter

import numpy as np
from transformers import PreTrainedTokenizerBase

from .corpora import Rows
from .encoding import Encoded, SpeltOut, TextEncoder
from .noise import SourceNoise
from .objectives import Objective, pieces
from .pairs import PairTokenizer, first_reference
from .subwords import Regularisation


class RegularisedEncoder:
    """
    Encodes the texts of one side, split into other subwords each time.

    Args:
        tokenizer, limit, target, marks: As `TextEncoder` takes them.
        regularisation: How words are split; None for the tokenizer's own way.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        limit: int | None = None,
        target: bool = False,
        marks: Iterable[int] = (),
        regularisation: Regularisation | None = None,
    ):
        self.encode = TextEncoder(tokenizer, limit, target, marks)
        self.regularisation = regularisation

    def __call__(self, texts: Sequence[str], random: np.random.Generator) -> list[Encoded]:
        if self.regularisation is None or not texts:
            return self.encode(texts)
        split = self.regularisation.splitter(random)
        batch = self.encode.batch_of(texts)
        found = []
        for number, text in enumerate(texts):
            encoded, words = self.encode.literal(text, batch["input_ids"][number]), batch.word_ids(number)
            if encoded.spelt_out == SpeltOut.AS_TEXT:
                words = self.encode.batch_of([text], split_special_tokens=True).word_ids(0)
            ids: list[int] = []
            for word, group in groupby(zip(words, encoded.ids, strict=True), key=itemgetter(0)):
                tokens = tuple(token for _, token in group)
                ids += tokens if word is None else split(tokens)  # special tokens are of no word
            found.append(Encoded(self.cut(ids), len(ids), encoded.spelt_out))
        return found

    def cut(self, ids: list[int]) -> list[int]:
        """Returns a text within the limit, with what stands around it, cut where the tokenizer cuts."""
        limit, frame = self.encode.limit, self.encode.frame
        if limit is None or len(ids) <= limit:
            return ids
        inside, room = frame.inside(ids), max(limit - len(frame), 0)
        is_left = self.encode.tokenizer.truncation_side == "left"
        kept = inside[len(inside) - room :] if is_left else inside[:room]
        return [*frame.prefix, *kept, *frame.suffix]


class NoisyPairs:
    """
    Makes token ids of pairs, with noise in sources and words split at random.

    Args:
        tokenize: Makes those of pairs without noise.
        overlong: "truncate" or "drop", for pairs beyond its limits.
        noise: Of sources.
        source, target: How the words of either side are split; None for the tokenizer's own way.
    """

    def __init__(
        self,
        tokenize: PairTokenizer,
        overlong: str = "truncate",
        noise: SourceNoise | None = None,
        source: Regularisation | None = None,
        target: Regularisation | None = None,
    ):
        self.overlong, self.noise, self.prefix = overlong, noise, tokenize.prefix
        limits = tokenize.encode_source.limit, tokenize.encode_target.limit
        self.encode_source = RegularisedEncoder(tokenize.source, limits[0], regularisation=source)
        self.encode_target = RegularisedEncoder(tokenize.target, limits[1], target=True, regularisation=target)

    def __call__(self, rows: Rows, random: np.random.Generator) -> Rows:
        texts = rows["source"]
        if self.noise is not None:
            texts = [self.noise(text, random) for text in texts]
        sources = self.encode_source([self.prefix + text for text in texts], random)
        targets = self.encode_target(list(map(first_reference, rows["target"])), random)
        pairs = list(zip(sources, targets, strict=True))
        if self.overlong == "drop":
            pairs = [pair for pair in pairs if not any(side.overlong for side in pair)]
        return {"input_ids": [source.ids for source, _ in pairs], "labels": [target.ids for _, target in pairs]}


class ObjectivePairs:
    """
    Makes sources and targets of texts by an objective; a text that is too long becomes several pieces of like length.

    Args:
        tokenizer: Of sources and targets.
        objective: Takes the tokens of a text without those that stand around it.
        longest: Tokens of the longest piece.
        marks: Ids of the objective's own tokens, which are text where a text spells them out.
        regularisation: How words are split; None for the tokenizer's own way.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        objective: Objective,
        longest: int,
        marks: Iterable[int] = (),
        regularisation: Regularisation | None = None,
    ):
        self.encode = RegularisedEncoder(tokenizer, marks=marks, regularisation=regularisation)
        self.objective, self.longest = objective, longest
        self.frames = self.encode.encode.frame, TextEncoder(tokenizer, target=True).frame

    def __call__(self, rows: Rows, random: np.random.Generator) -> Rows:
        made: Rows = {"input_ids": [], "labels": []}
        frame = self.frames[0]
        for text in self.encode(rows["source"], random):
            for piece in pieces(frame.inside(text.ids), self.longest):
                for column, side, ids in zip(made, self.frames, self.objective(piece, random), strict=True):
                    made[column].append([*side.prefix, *ids, *side.suffix])
        return made
