# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Decoded texts, with what is known of them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Hypothesis:
    """
    A decoded text.

    Args:
        text: The text.
        score: The natural logarithm of its probability, end token included, if it was asked for.
        length: Its tokens, end token included, if the score was asked for.
        utility: What minimum Bayes risk decoding sorts by, the highest first.
        ended: Whether it ended by itself, and not at the greatest length.
        unknown: Its unknown tokens, which the text is without.
    """

    text: str
    score: float | None = None
    length: int | None = None
    utility: float | None = None
    ended: bool = True
    unknown: int = 0

    @property
    def per_token(self) -> float | None:
        """Mean of the logarithms of its tokens' probabilities."""
        return None if self.score is None else self.score / max(1, self.length or 0)
