# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Secrets and paths of this machine: kept out of records, and looked for in everything that is published."""

import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path, PureWindowsPath
from typing import Any

from huggingface_hub import get_token


REMOVED = "[removed]"
# Patterns of access tokens, keys and passwords, by the name that a message gives them.
SECRETS = {
    # The second form is of OAuth and of continuous integration, the third the former one of organisations.
    "a token of the Hub": (
        r"\bhf_(?!xformer)[A-Za-z0-9]{20,}|\bhf_(?:oauth|jwt)_(?=\w*[A-Z0-9])[\w.-]{20,}|\bapi_org_[A-Za-z0-9]{20,}"
    ),
    "a token of GitHub": r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,})",
    "a token of GitLab": r"\bglpat-[\w-]{20,}",
    "an API key": (
        r"\b(?:sk|pk|rk)-(?:[a-z]+-)?[A-Za-z0-9_-]{20,}|\bAIza[\w-]{35}|\bwandb_v1_\w{20,}"
        r"|\b(?:nvapi-|gsk_|r8_)[\w-]{30,}|\bya29\.[\w-]{20,}"
    ),
    "a token of a registry": r"\bpypi-AgE[\w-]{50,}|\bnpm_[A-Za-z0-9]{36}\b|\bdckr_pat_[\w-]{20,}",
    "a key of AWS": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a token of Slack": r"\bxox[abeprs]-[\w-]{10,}",
    "a web token": r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a password in an address": r"\b[a-z][a-z0-9+.-]*://[^\s/:@\"'<>]*:[^\s/@\"'<>]+@",
}
# For the value of an option only: a text of data may look like these.
NAMED_SECRET = re.compile(r"(?i)(?:token|secret|passw(?:or)?d|api_?key|access_?key|credentials?)[\"']?\s*[=:]\s*\S")
SECRET_OPTION = re.compile(r"(?i)--[\w-]*(?:token|secret|passw(?:or)?d|api[_-]?key|access[_-]?key|credentials?)")
SECRET_VARIABLE = re.compile(r"(?i)TOKEN(?!I[SZ])|SECRET|PASSW(?:OR)?D|API_?KEY|ACCESS_?KEY")
SHORTEST_SECRET = 12  # characters; shorter values of such variables are words such as "disabled"
# An absolute path as a whole text, and inside of one.
IN_PATH = r"[^\s/\\\"'`<>|:;,()\[\]{}]"
ABSOLUTE = re.compile(rf"(?:file://|~)?/{IN_PATH}+.*|[A-Za-z]:[\\/].+|\\\\\w.*", re.DOTALL)
INSIDE = re.compile(rf"(?<![\w./~<\\-])(?:(?:file://|~)?(?:/{IN_PATH}+)+/?|[A-Za-z]:\\(?:{IN_PATH}+\\?)+)")
# Where people's folders are, on any machine.
HOMES = r"(?:/home/|/root/|/Users/|[A-Za-z]:\\Users\\)" + IN_PATH


def public_path(path: str | Path) -> str:
    """
    Returns a path as others may see it: relative to the working folder, or its last part outside of that. A name on
    the Hub stays as it is.
    """
    text = str(path).removeprefix("file://")
    if re.match(r"[A-Za-z]:[\\/]|\\\\", text):
        return PureWindowsPath(text).name
    here, home = Path.cwd(), Path.home()
    # Above people's folders a relative path says whose it is.
    is_above = home != here and home.is_relative_to(here)
    is_plain = not text.startswith(("/", "~")) and ".." not in Path(text).parts
    if is_plain and not (is_above and Path(text).exists()):
        return text
    absolute = Path(os.path.normpath(here / Path(text).expanduser()))
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) and not is_above else absolute.name


def cleaned(value: Any) -> Any:
    """Returns a JSON value in which no text has a secret, or a path that others may not see."""
    if isinstance(value, dict):
        return {cleaned(name): cleaned(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(each) for each in value]
    if not isinstance(value, str):
        return value
    value = without_secrets(value)
    with suppress(OSError):  # of a text that no name of a file can be
        if ABSOLUTE.fullmatch(value) and Path(value).exists():  # spaces and all
            return public_path(value)
    for place in sorted(map(str, local_places()), key=len, reverse=True):
        if " " in place:
            value = value.replace(f"{place}/", "")
    return INSIDE.sub(lambda match: public_path(match[0]), value)


def without_secrets(text: str) -> str:
    """Returns a text with `REMOVED` in place of what looks like a secret, or is one of this process."""
    for pattern in SECRETS.values():
        text = re.sub(pattern, REMOVED, text)
    for secret in known_secrets():
        text = text.replace(secret, REMOVED)
    return text


def hide_secrets(words: list[str]) -> None:
    """
    Takes secrets out of a command line, in place: trackers store `sys.argv`.

    Args:
        words: Options as `--hub_token X`, `--hub-token=X` or in other spellings; what looks like a secret goes
            from any value, and all values of an option whose name says that it has one.
    """
    is_secret = False
    for place, word in enumerate(words):
        name, equals, _ = word.partition("=")
        if word.startswith("--"):
            is_secret = SECRET_OPTION.fullmatch(name) is not None
            hides = bool(equals) and (is_secret or NAMED_SECRET.search(word) is not None)
            words[place] = f"{name}={REMOVED}" if hides else without_secrets(word)
        else:
            words[place] = REMOVED if is_secret or NAMED_SECRET.search(word) else without_secrets(word)


def is_path(value: str) -> bool:
    """Returns whether a text is an absolute path, of two parts at least: a token may begin with a slash."""
    parts = re.split(r"[/\\]+", value.removeprefix("file://").rstrip("/\\"))
    return ABSOLUTE.fullmatch(value) is not None and (len(parts) > 2 or parts[0] == "~")


def known_secrets() -> list[str]:
    """Returns the secrets that this process was given in its environment, and the token that people log in with."""
    found = {value for name, value in os.environ.items() if SECRET_VARIABLE.search(name) and not is_path(value)}
    return sorted(each for each in {*found, get_token() or ""} if len(each) >= SHORTEST_SECRET)


def secret_in(text: str) -> str | None:
    """Returns what kind of secret a text has in it; None if it has none."""
    for kind, pattern in SECRETS.items():
        if re.search(pattern, text):
            return kind
    return "a secret of this process's environment" if any(each in text for each in known_secrets()) else None


def place_in(text: str) -> str | None:
    """Returns the first path in a text that leads to this machine's folders or to somebody's home; None without."""
    places = {str(each) for each in local_places()}
    ours = "|".join(map(re.escape, sorted(places, key=len, reverse=True)))
    start = r"(?<![\w./-])(?:file://)?"
    match = re.search(rf"{start}(?:(?:{ours})(?!{IN_PATH})|{HOMES}){IN_PATH}*(?:[/\\]{IN_PATH}+)*", text)
    return match[0] if match else None


def local_places() -> set[Path]:
    """Returns the working folder, the home and the one for temporary files, as they are named and as they are."""
    named = {Path.cwd(), Path.home(), Path(tempfile.gettempdir())}
    return {each for path in named for each in (path, path.resolve()) if each != Path(each.anchor)}
