# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A Space of the Hub that shows a model: the page of `hf-xformer demo`, on the model's repository."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import ClassVar

from huggingface_hub import ModelCard
from huggingface_hub.utils import yaml_dump

from ..errors import ArgumentError
from ..files import ADAPTER_CONFIG, CARD
from .publication import Publication, matches
from .repository import Repository, content_of


APP, REQUIREMENTS = "app.py", "requirements.txt"
# Packages whose versions decide what the page shows, as they are here.
PINNED = ("torch", "transformers", "tokenizers", "gradio", "matplotlib")
# A Space has no GPU unless its owner pays for one: wheels of torch without CUDA.
CPU_WHEELS = "--extra-index-url https://download.pytorch.org/whl/cpu"
PYTHON = "3.11"
LONGEST_TITLE = 60
APP_TEMPLATE = '''\
"""The page of `hf-xformer demo` for {model}."""

from hf_xformer.commands import demo


demo.main({argv})
'''
CARD_TEMPLATE = """\
---
{header}---

The page of `hf-xformer demo` for [{model}](https://huggingface.co/{model}).
"""


@dataclass
class Space(Repository):
    """A Space on the Hub, whose SDK is Gradio."""

    kind: ClassVar[str] = "space"
    sdk: ClassVar[str | None] = "gradio"
    # A header of the Hub's own for a new Space, and a line of text.
    empty_card: ClassVar[re.Pattern[bytes]] = re.compile(
        rb"\s*(---\r?\n(\w+: *[^\r\n]*\r?\n)*---)?\s*(Check out the configuration reference at \S*)?\s*"
    )

    @property
    def key(self) -> str:
        return f"spaces/{self.name}"

    def stale(self, publication: Publication, there: Iterable[str] | None = None) -> list[str]:
        """Returns nothing: what else is in a Space is no part of a model."""
        return []


def prepare_space(
    model: str, published: Publication, branch: str | None = None, trust_remote_code: bool = False
) -> Publication:
    """
    Returns the files of the Space that shows a model.

    Args:
        model: Its name on the Hub.
        published: What is there.
        branch: Of the model's repository; its main one by default.
        trust_remote_code: Whether code of the model's repository may run in the Space.

    Raises:
        ArgumentError: A package that the page needs is not installed, so that there is no version to name.
    """
    argv = [model, "--host", "0.0.0.0"]
    argv += [] if branch is None else ["--revision", branch]
    argv += ["--trust_remote_code"] * trust_remote_code
    files = {
        APP: APP_TEMPLATE.format(model=model, argv=json.dumps(argv)),
        REQUIREMENTS: "\n".join(requirements(published)) + "\n",
        CARD: CARD_TEMPLATE.format(model=model, header=yaml_dump(header(model, published), sort_keys=False)),
    }
    return Publication({name: text.encode() for name, text in files.items()})


def requirements(published: Publication) -> list[str]:
    """Returns the lines of `requirements.txt`, with the versions that are installed here."""
    more = ["peft"] if ADAPTER_CONFIG in published.files else []
    more += ["sentencepiece"] if any(matches(name, ("*.spm", "*.model")) for name in published.files) else []
    return [CPU_WHEELS, *(f"{name}=={installed(name)}" for name in ("hf-xformer", *PINNED, *more))]


def installed(package: str) -> str:
    """
    Returns a package's version without the part that names its build, such as "+cpu".

    Raises:
        ArgumentError: It is not installed.
    """
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        raise ArgumentError(
            f"--space needs {package}, whose version the Space gets: pip install 'hf-xformer[demo]'"
        ) from None


def header(model: str, published: Publication) -> dict[str, object]:
    """Returns the fields by which the Hub runs a Space."""
    card = ModelCard(content_of(published.files[CARD]).decode()).data.to_dict()
    return {
        "title": model.rpartition("/")[2][:LONGEST_TITLE],
        "sdk": "gradio",
        "sdk_version": installed("gradio"),
        "python_version": PYTHON,
        "app_file": APP,
        "models": [model],
        "license": card.get("license"),
    }
