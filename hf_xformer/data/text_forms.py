# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Forms of a text without its case, spaces, accents or spelling in Unicode, in which it is compared with others."""

import re
import unicodedata


# White space, and characters that no font shows: soft hyphen, zero widths, marks of direction, byte order mark.
BLANK = re.compile("[\\s\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]*")


def is_blank(text: str) -> bool:
    """Returns whether nothing of a text can be seen."""
    return BLANK.fullmatch(text) is not None


def composed(text: str) -> str:
    """Returns a text in Unicode's normal form C."""
    return unicodedata.normalize("NFC", text)


def one_space_apart(text: str) -> str:
    """Returns a text in normal form C, its words one space apart."""
    return " ".join(composed(text).split())


def without_spaces(text: str) -> str:
    """Returns a text in normal form C, without spaces."""
    return "".join(composed(text).split())


def compatible(text: str) -> str:
    """Returns a text in Unicode's normal form KC, without spaces: "ﬁ" as "fi"."""
    return "".join(unicodedata.normalize("NFKC", text).split())


def without_accents(text: str) -> str:
    """Returns a text without spaces and combining marks."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c) and not c.isspace())
