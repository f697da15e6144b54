# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Fills in what the package itself knows, while mkdocs builds the site.

A line `{{ name }}` of a page becomes the table or block of that name in `BLOCKS`. Each verb gets a page,
`commands/VERB.md`, made from its parser.
"""

import argparse
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin
from unittest import mock

from hf_xformer import XformerConfig
from hf_xformer.cli import LAUNCH_OPTIONS, PROGRAM, VERBS
from hf_xformer.hub.card import CardFacts
from hf_xformer.training.arguments import CorpusArguments, StageArguments
from hf_xformer.training.schema import Row, options_of, options_table


ROOT = Path(__file__).resolve().parent.parent
PLACEHOLDER = re.compile(r"^\{\{ (\w+) \}\}$", flags=re.MULTILINE)
# Drawn by the benchmarks and shown on the page of results.
PICTURES = sorted((ROOT / "benchmarks/results").glob("*.png"))
# Fields that every configuration of transformers has.
INHERITED_FIELDS = {
    "is_encoder_decoder": "Always true.",
    "pad_token_id": "Id of the padding token.",
    "eos_token_id": "Id of the end token, or several ids, each of which ends a text.",
    "bos_token_id": "Id of the token that begins a text, if the tokenizer has one.",
    "decoder_start_token_id": "Id of the token that the decoder starts with.",
}
# A default that depends on the machine.
USE_CPU = "true if there is no GPU"


@dataclass(frozen=True)
class Option:
    """One row of a table of options."""

    name: str
    type: str
    default: str
    help: str


def recipe_options() -> list[Option]:
    """Options of a recipe that this package adds to the Trainer's."""
    return [option_of(row) for row in options_table() if row.group != "training"]


def trainer_options() -> list[Option]:
    """Options of a recipe that are the stock Trainer's."""
    return [option_of(row) for row in options_table() if row.group == "training"]


def corpus_options() -> list[Option]:
    """Options of a corpus in a recipe's `datasets`."""
    return [option_of(row) for row in options_table(options_of("", CorpusArguments))]


def stage_options() -> list[Option]:
    """Options of a stage in a recipe's `stages`."""
    return [option_of(row) for row in options_table(options_of("", StageArguments))]


def option_of(row: Row) -> Option:
    """Returns a row of the schema; a long list of choices stands in the help, where there is room."""
    kind, help = row.type, row.help
    if kind.startswith("one of ") and len(kind) > 40:
        kind, help = "text", f"{help} O{kind[1:]}."
    return Option(row.name, kind, USE_CPU if row.name == "use_cpu" else row.default, help)


def model_options() -> list[Option]:
    """Fields of `XformerConfig`, in their order, described as its docstring does."""
    described = INHERITED_FIELDS | documented_arguments(XformerConfig)
    found = {each.name: each for each in fields(XformerConfig)}
    own = [found[name] for name in XformerConfig.__annotations__ if name in found]
    return [Option(each.name, type_name(each.type), default_of(each), described[each.name]) for each in own]


def card_options() -> list[Option]:
    """Keys of a file of card facts."""
    described = documented_arguments(CardFacts)
    return [
        Option(each.name, type_name(each.type), default_of(each), described[each.name]) for each in fields(CardFacts)
    ]


def documented_arguments(documented: type) -> dict[str, str]:
    """Returns `{argument: text}` of the Args section of a docstring; `a, b: text` describes both."""
    section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", inspect.getdoc(documented) or "", re.MULTILINE | re.DOTALL)
    entries = re.findall(r"^ {4}(\w[\w, ]*): (.*(?:\n {8}.*)*)", section[1] if section else "", re.MULTILINE)
    return {name: " ".join(text.split()) for names, text in entries for name in names.split(", ")}


def type_name(annotation: Any) -> str:
    """Returns a type in a few words, without the None that stands for the default."""
    kinds = [kind for kind in get_args(annotation) or [annotation] if kind is not type(None)]
    if get_origin(annotation) is Literal:
        return " or ".join(map(str, kinds))
    if get_origin(annotation) is list:
        return f"list of {type_name(kinds[0])}"
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(dict.fromkeys(type_name(kind) for kind in kinds))
    return annotation.__name__


def default_of(field: Field) -> str:
    """Returns a field's default as YAML has it; nothing for None."""
    if field.default is MISSING:
        return "required" if field.default_factory is MISSING else yaml_value(field.default_factory())
    return yaml_value(field.default)


def yaml_value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) or '""'


def table(options: Iterable[Option]) -> str:
    """Returns options as a Markdown table."""
    rows = [(f"`{each.name}`", cell(each.type), default_cell(each.default), cell(each.help)) for each in options]
    return markdown_table(("option", "type", "default", ""), rows)


def markdown_table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def default_cell(default: str) -> str:
    in_words = default == "required" or default == USE_CPU
    return f"`{default}`" if default and not in_words else default


def cell(text: str) -> str:
    """Returns a text that Markdown shows as it is inside a table; what stands in backticks stays code."""
    parts = text.split("`")
    return "`".join(part if i % 2 else re.sub(r"([|*_<\[])", r"\\\1", part) for i, part in enumerate(parts))


def verbs() -> str:
    rows = [(f"[`{PROGRAM} {verb}`]({verb}.md)", summary) for verb, summary in VERBS.items()]
    return markdown_table(("command", ""), rows)


def quickstart_recipe() -> str:
    """Returns the quickstart's recipe as a block of code."""
    text = (ROOT / "configs/train/g2p-quickstart.yaml").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith(("# Copyright", "# SPDX"))]
    return "\n".join(["```yaml", *lines, "```"])


BLOCKS: dict[str, Callable[[], str]] = {
    "recipe_options": lambda: table(recipe_options()),
    "trainer_options": lambda: table(trainer_options()),
    "corpus_options": lambda: table(corpus_options()),
    "stage_options": lambda: table(stage_options()),
    "model_options": lambda: table(model_options()),
    "card_options": lambda: table(card_options()),
    "quickstart_recipe": quickstart_recipe,
}


class Parsed(BaseException):
    """Carries a verb's parser out of its `main`, which must not go on."""


def parser_of(verb: str) -> argparse.ArgumentParser:
    """Returns the parser of a verb, as its `main` makes it."""

    def stop(parser: argparse.ArgumentParser, *args, **kwargs):
        raise Parsed(parser)

    main = importlib.import_module(f"hf_xformer.commands.{verb}").main
    with mock.patch.object(argparse.ArgumentParser, "parse_known_args", stop):
        try:
            main([])
        except Parsed as parsed:
            parser: argparse.ArgumentParser = parsed.args[0]
    parser.prog = f"{PROGRAM} {verb}"
    return parser


def verb_page(verb: str) -> str:
    """Returns the page of a verb: its description, its arguments and its options."""
    parser = parser_of(verb)
    page = [f"# {verb}", prose(parser.description or "")]
    if verb == "train":
        launch = ", ".join(f"`--{name}`" for name in LAUNCH_OPTIONS)
        page += [
            f"With `--config_file FILE` it goes through `accelerate launch`, which also takes {launch}.",
            "Every option of a recipe is an option here too: see [Recipes](../recipes.md).",
        ]
    else:
        for group in parser._action_groups:
            actions = [each for each in group._group_actions if not isinstance(each, argparse._HelpAction)]
            if actions:
                title = {"positional arguments": "Arguments", "options": "Options"}.get(group.title or "", group.title)
                page += [f"## {str(title).capitalize()}", group.description or "", action_table(actions)]
    if parser.epilog:
        page.append(f"``` {{ .text .wrap }}\n{parser.epilog.strip()}\n```")
    return "\n\n".join(page) + "\n"


def prose(text: str) -> str:
    """Returns a parser's description as Markdown: its indented lines are examples."""
    blocks = re.split(r"\n\s*\n", textwrap.dedent(text).strip("\n"))
    examples = [block.startswith("  ") for block in blocks]
    return "\n\n".join(
        f"```bash\n{textwrap.dedent(block)}\n```" if is_example else cell(block)
        for block, is_example in zip(blocks, examples, strict=True)
    )


def action_table(actions: list[argparse.Action]) -> str:
    return markdown_table(("", "value", "default", ""), map(action_row, actions))


def action_row(action: argparse.Action) -> tuple[str, ...]:
    name = ", ".join(action.option_strings) or action.dest
    # Types that check a range are functions.
    kind = {None: "text", str: "text", Path: "path"}.get(action.type, "number")
    value = ", ".join(map(str, action.choices)) if action.choices else kind
    value += "; one or more" if action.nargs == "+" else ""
    default = "required" if action.required and action.option_strings else yaml_value(action.default)
    # The column says it already.
    help = re.sub(rf" \(default:? (?:%\(default\)s|{re.escape(default)})\)", "", action.help or "")
    if action.nargs == 0:  # a switch
        value = default = ""
    return f"`{name}`", cell(value), default_cell(default), cell(help)


def generated_pages() -> dict[str, str]:
    """Returns `{path in the site's sources: content}` of the pages that stand in no file."""
    index = f"# Commands\n\n`python -m hf_xformer VERB` is the same as `{PROGRAM} VERB`.\n\n{verbs()}\n"
    return {"commands/index.md": index} | {f"commands/{verb}.md": verb_page(verb) for verb in VERBS}


def on_config(config):
    """Adds the verbs' pages to the site's navigation."""
    config.nav.append({"Commands": ["commands/index.md", *({verb: f"commands/{verb}.md"} for verb in VERBS)]})
    return config


def on_files(files, config):
    """Adds the pages and pictures that are no files of docs/."""
    from mkdocs.structure.files import File

    for path, content in generated_pages().items():
        files.append(File.generated(config, path, content=content))
    for picture in PICTURES:
        files.append(File.generated(config, f"pictures/{picture.name}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown, **_):
    """Puts tables where a page names them, and finds pictures of the repository where the site has them."""
    markdown = markdown.replace("](../benchmarks/results/", "](pictures/")
    return PLACEHOLDER.sub(lambda match: BLOCKS[match[1]](), markdown)


def on_page_content(html, **_):
    """Shows names that docstrings put in brackets as names, `[~package.Name]` as Name."""
    return re.sub(r"\[<code>(?:~[\w.]+\.)?(\w+)</code>\]", r"<code>\1</code>", html)


def on_post_page(output, page, **_):
    """Refuses pages that would fetch something from the network when they are read."""
    from mkdocs.exceptions import PluginError

    if fetched := re.search(r"<(?:script|link|img|iframe)\b[^>]+(?:src|href)=.?https?:[^>]*>", output):
        raise PluginError(f"{page.file.src_uri} would fetch {fetched[0]}")
    return output
