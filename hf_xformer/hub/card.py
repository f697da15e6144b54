# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Model cards: `README.md` of a checkpoint's folder, filled from what a run has recorded and from what only people know.

The run's part is in `run.json` and `*_results.json`. People's part is a YAML file, such as those in model_cards/, one
for each recipe. What neither says is marked in the card, and a card with a mark is not published.
"""

import hashlib
import re
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path

import jinja2
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from ..errors import ArgumentError, blame, did_you_mean
from ..files import (
    ATTENTION,
    CARD,
    CONFIG,
    CURVES,
    EVAL_RESULTS,
    RECORD,
    TARGET_TOKENIZER,
    TEST_RESULTS,
    TRAIN_RESULTS,
    find,
    read_json,
    write_text,
)
from ..yaml_files import read_yaml_file
from .curves import TIMINGS, set_and_metric
from .privacy import cleaned, public_path
from .record import update_record
from .templates import Written, card_template, quoted


TO_FILL_IN = "to fill in: "
# Default watts: per GPU, or per core of a CPU with its share of the machine.
WATTS = {"gpu": 400, "cpu": 10}
# Links of Markdown and of HTML to a file beside the card.
ELSEWHERE = r"(?!https?://|mailto:|#)"
LINK = re.compile(rf"""\]\({ELSEWHERE}([^)\s]+)\)|(?:src|href)=["']{ELSEWHERE}([^"'\s]+)["']""")
MARK = re.compile(rf"\[{TO_FILL_IN}(\w+)\]")


@dataclass(frozen=True)
class CardFacts:
    """
    Facts about a model that only people know.

    Args:
        summary: What it does, in a sentence.
        language: Codes of two or three letters, one or a list.
        license: Licence of the weights, as the Hub spells it, such as "apache-2.0".
        data: What it was trained on, and how the data were split.
        data_license: Licence of the data.
        intended_use: What it is for.
        limits: What it cannot do, and what it should not be used for.
        data_url: Where the data come from.
        dataset_id: Name of the test data on the Hub, which lists the scores there.
        example: A source text to show it with.
        watts: Power of all devices together; by default a guess, `WATTS`.
        carbon_intensity: Grams of CO2 equivalent per kWh; by default the world's mean of 2023 (Ember 2024).
    """

    summary: str
    language: str | list[str]
    license: str
    data: str
    data_license: str
    intended_use: str
    limits: str
    data_url: str | None = None
    dataset_id: str | None = None
    example: str | None = None
    watts: float | None = None
    carbon_intensity: float = 480.0


NUMBERS = ("watts", "carbon_intensity")
REQUIRED = tuple(each.name for each in fields(CardFacts) if each.default is MISSING)


def read_facts(path: str | Path | None) -> CardFacts:
    """
    Reads the facts of a YAML file; a required one that is missing becomes a mark.

    Raises:
        ArgumentError: The file cannot be read, has an unknown field, or a value of the wrong type.
    """
    given, where = {}, f"--card_facts {path}"
    if path is not None:
        given = read_yaml_file(find(path), where)
        if not isinstance(given, dict):
            raise ArgumentError(f"{where}: expected lines of 'field: text'")
    known = [each.name for each in fields(CardFacts)]
    for name in given:
        if name not in known:
            near = did_you_mean(str(name), known)
            raise ArgumentError(f"{where}: no field {name}{near}; there are {', '.join(known)}")
    for name, value in given.items():
        texts = value if name == "language" and isinstance(value, list) else [value]
        if name not in NUMBERS and value is not None and not all(isinstance(each, str) for each in texts):
            raise ArgumentError(f"{where}: {name} must be a text, got {value!r:.60}")
    if given.get("dataset_id") is not None:
        with blame(f"{where}: dataset_id must be a name on the Hub", HFValidationError):
            validate_repo_id(given["dataset_id"])
    for name in NUMBERS:
        if name in given and not (isinstance(given[name], int | float) and 0 < given[name] < float("inf")):
            raise ArgumentError(f"{where}: {name} must be a number above 0, got {given[name]!r}")
    marks = {name: f"[{TO_FILL_IN}{name}]" for name in REQUIRED if not given.get(name)}
    return CardFacts(**{**given, **marks})


def facts_of(record: dict) -> CardFacts:
    """Returns the facts in a run's record, with marks for what is missing; unknown fields are left out."""
    known, given = {each.name for each in fields(CardFacts)}, record.get("facts", {})
    return replace(read_facts(None), **{name: given[name] for name in given if name in known})


def missing_facts(facts: CardFacts) -> list[str]:
    """Returns the names of the required facts that nobody has given."""
    return [name for name in REQUIRED if MARK.search(str(getattr(facts, name)))]


def scores_of(folder: Path) -> dict[str, dict[str, float]]:
    """
    Returns `{"validation": {metric: value}, "test": {...}}`, of the evaluations that there were.

    Where there are several validation sets, the first has their means, and each an entry such as "validation: news".
    """
    validation = {
        name.removeprefix("eval_"): value
        for name, value in read_json(folder / EVAL_RESULTS).items()
        if name.startswith("eval_") and name.removeprefix("eval_") not in (*TIMINGS, "samples") and value is not None
    }
    of_sets: dict[str, dict[str, float]] = {"validation": {}}
    for name, value in validation.items():
        part, metric = set_and_metric(name, validation)
        of_sets.setdefault(split_of(part), {})[metric] = value
    tested = read_json(folder / TEST_RESULTS)
    test = {name: tested[name] for name in tested.get("metrics", []) if tested.get(name) is not None}
    if "wer" in test and "unicode_form" not in tested:  # of an earlier build, where wrong_words had this name
        test = {"wrong_words" if name == "wer" else name: value for name, value in test.items()}
    return {split: scores for split, scores in (*of_sets.items(), ("test", test)) if scores}


def split_of(name: str) -> str:
    """Returns what a card calls one of several validation sets, or the whole of them."""
    return f"validation: {name}" if name else "validation"


def speed_of(folder: Path) -> str:
    """Returns a training's useful tokens a second and utilisation in words; an empty text if nobody counted them."""
    results = read_json(folder / TRAIN_RESULTS)
    if not (source := results.get("train_source_tokens_per_second")):
        return ""
    tokens = f"{source:,.0f} source and {results['train_target_tokens_per_second']:,.0f} target tokens a second"
    mfu = results.get("train_mfu")
    return tokens if mfu is None else f"{tokens}, {mfu:.1%} of the hardware's peak"


def render(folder: Path, facts: CardFacts, name: str) -> ModelCard:
    """
    Returns the card of a run's folder.

    Args:
        name: What the card's code loads the model by: its name on the Hub, or the folder's path as others may see it.

    Raises:
        ArgumentError: The folder has no record of a run, or a record of another version.
    """
    run, tested = cleaned(read_json(folder / RECORD)), cleaned(read_json(folder / TEST_RESULTS))
    if not run:
        raise ArgumentError(f"{folder}: no {RECORD} there, which training writes, to fill a card from")
    try:
        example = run.get("example") or {}
        evaluated_on, rows_of = evaluated_sets(run, tested)
        scores, footprint = scores_of(folder), Footprint.of(run, facts)
        named_sets = {split: said + rows_of[split] for split, said in evaluated_on.items()}
        text = card_template().render(
            card_data=Written(metadata_of(run, facts, name, scores, named_sets, footprint).to_yaml()),
            name=name,
            title=folder.resolve().name if name == "." else name.rpartition("/")[2],
            facts=facts,
            written=example.get("text") if example.get("source") == facts.example else None,
            run=run,
            scores=scores,
            evaluated_on=evaluated_on,
            rows_of=rows_of,
            signatures={f"validation {name}_signature": each for name, each in run.get("signatures", {}).items()}
            | {each: tested[each] for each in tested if each.endswith("_signature")},
            has_wrong_words=any("wrong_words" in values for values in scores.values()),
            decoded=" ".join(filter(None, (how_validated(run), how_decoded(tested) if "test" in scores else ""))),
            starts=other_starts(run.get("starts", [])),
            has_code=(folder / CONFIG).exists() and run["is_xformer"],
            has_target=(folder / TARGET_TOKENIZER).is_dir(),
            pictures=[each for each in (CURVES, ATTENTION) if (folder / each).exists()],
            footprint=footprint,
            speed=speed_of(folder),
        )
    except (KeyError, TypeError, ValueError, jinja2.UndefinedError) as error:
        raise ArgumentError(
            f"{folder / RECORD}: not what this version writes: {error}; start the run again"
        ) from error
    return ModelCard(text)


def evaluated_sets(run: dict, tested: dict) -> tuple[dict[str, str], dict[str, str]]:
    """
    Returns two mappings by a card's names of splits: to their files, and to words for their rows, such as ", 500 rows"
    or ", its first 500 rows", which are empty if nothing is known of them.
    """
    files = ", ".join(tested.get("test_file", [])) or tested.get("checkpoint", "")  # or of predictions
    evaluated_on = {"validation": run["evaluated_on"], "test": files}
    evaluated_on |= {split_of(name): its_files for name, its_files in run.get("evaluated_sets", {}).items()}
    rows_of = dict.fromkeys(evaluated_on, "") | {"test": "".join(f", {each}" for each in rows_tested(tested))}
    rows_of |= {split_of(name): f", {count:,} rows" for name, count in run.get("evaluated_rows", {}).items()}
    return evaluated_on, rows_of


def rows_tested(tested: dict) -> list[str]:
    """Returns in words which rows of a test set were tested, if those were not all, by their results."""
    most, samples, left = (tested.get(name) for name in ("max_samples", "samples", "bad_rows_left_out"))
    said = [f"its first {most:,} rows"] if most and most <= (samples or most) else []
    return said + ([f"without {sum(left.values()):,} bad rows"] if left else [])


def how_validated(run: dict) -> str:
    """Returns in words how the texts of a run's own evaluation were decoded; an empty text if nobody recorded it."""
    if not (decoding := run.get("validation_decoding")):
        return ""
    words = ", ".join(f"{option} {value}" for option, value in decoding.items())
    return f"Validation texts were decoded with {words}."


def other_starts(starts: list[dict]) -> list[tuple[int, str]]:
    """Returns the first step of each start of a run and what it was made of, if that is not the same of all."""
    made_of = [
        ", ".join(
            [
                f"commit {start['commit']}" if start.get("commit") else "no commit",
                *(f"{module} {version}" for module, version in sorted(start["versions"].items())),
                start["hardware"]["name"],
            ]
        )
        for start in starts
    ]
    return list(zip((start["from_step"] for start in starts), made_of, strict=True)) if len({*made_of}) > 1 else []


def how_decoded(tested: dict) -> str:
    """Returns in words how the texts came about that were tested, by their results."""
    if "sources_truncated" not in tested:
        return (
            f"The texts were read from {tested.get('checkpoint', 'a file')}: how they were decoded is not on record."
        )
    words = ", ".join(f"{option} {value}" for option, value in (tested.get("decoding") or {}).items())
    said = f"The test set was decoded {f'with {words}' if words else 'as the generation config says'}"
    if (weights := tested.get("quantization") or tested.get("dtype", "float32")) != "float32":
        said += f", with weights in {weights}"
    for name, what in (
        ("sources_truncated", "sources were cut"),
        ("texts_cut_off", "texts ended without an end token"),
    ):
        if count := tested.get(name):
            said += f"; {count:,} of {tested['samples']:,} {what}"
    return f"{said}."


@dataclass(frozen=True)
class Footprint:
    """Cost of a training: measured seconds, given or guessed watts, and the grams of CO2 equivalent that follow."""

    seconds: float
    watts: float
    carbon_intensity: float  # grams per kWh

    @classmethod
    def of(cls, run: dict, facts: CardFacts) -> "Footprint":
        guess = WATTS[run["hardware"]["kind"]] * run["hardware"]["count"]
        return cls(run["seconds"], facts.watts or guess, facts.carbon_intensity)

    @property
    def grams(self) -> float:
        return self.seconds / 3600 * self.watts / 1000 * self.carbon_intensity

    @property
    def time(self) -> str:
        return f"{self.seconds / 3600:.1f} hours" if self.seconds >= 5400 else f"{self.seconds / 60:.1f} minutes"


def metadata_of(
    run: dict,
    facts: CardFacts,
    name: str,
    scores: dict[str, dict[str, float]],
    evaluated_on: dict[str, str],
    footprint: Footprint,
) -> ModelCardData:
    """Returns the card's header, by which the Hub sorts models."""
    base = run["base_model"]
    return ModelCardData(
        language=facts.language,
        license=facts.license,
        library_name="peft" if run["adapter_parameters"] else "transformers",
        tags=["hf-xformer", "encoder-decoder", "seq2seq"],
        base_model=None if base is None or run.get("base_is_local", Path(base).exists()) else line(base),
        datasets=facts.dataset_id,
        model_name=line(name.rpartition("/")[2]),
        eval_results=[
            EvalResult(
                task_type="text2text-generation",
                dataset_type=hub_name(facts, split, evaluated_on[split]) or line(Path(evaluated_on[split]).stem),
                dataset_name=line(evaluated_on[split]),
                # Results of one type, configuration and split are one block on the Hub, with the name of its first.
                dataset_config=line(split.partition(": ")[2]) or None,
                dataset_split=run.get("evaluated_split", "validation") if split != "test" else "test",
                metric_type=line(metric),
                metric_value=round(value, 4),
            )
            for split, values in scores.items()
            for metric, value in values.items()
        ],
        co2_eq_emissions={
            "emissions": float(f"{footprint.grams:.3g}"),
            "source": f"{footprint.watts:g} W for the measured time, {footprint.carbon_intensity:g} g a kWh",
            "hardware_used": line(run["hardware"]["name"]),
        },
    )


def hub_name(facts: CardFacts, split: str, evaluated_on: str) -> str | None:
    """Returns the name on the Hub that the facts give the test data, for scores on these; None for those on others."""
    return facts.dataset_id if split == "test" or evaluated_on.partition(",")[0] == facts.dataset_id else None


def line(text: str) -> str:
    """Returns a text on one line: the header has its end on a line of its own."""
    return " ".join(str(text).split())


def named(name: str) -> str:
    """Returns the name of a model as the card's code has it."""
    return str(quoted(name))


def write_card(folder: Path, facts: CardFacts, overwrite: bool = False, written: str | None = None) -> None:
    """
    Writes the card, and its digest to the record: a card that people change later is not overwritten.

    Args:
        written: Text that the model wrote for the facts' example, for the record.

    Raises:
        ArgumentError: The card was changed by hand, and `overwrite` is off.
    """
    if not overwrite:
        check_unedited(folder)
    if written is not None:
        update_record(folder, {"example": {"source": facts.example, "text": written}})
    name = public_path(folder)
    card = render(folder, facts, name)
    write_text(folder / CARD, str(card))
    update_record(
        folder, {"facts": vars(facts), "card_name": name, "card_sha256": digest((folder / CARD).read_bytes())}
    )


def check_unedited(folder: Path) -> None:
    """
    Checks that a card was not changed by hand since it was written.

    Raises:
        ArgumentError: The card was changed by hand, or nobody knows.
    """
    if reason := why_kept(folder):
        raise ArgumentError(f"{folder / CARD} {reason}; --overwrite writes it anew")


def why_kept(folder: Path) -> str | None:
    """Returns why a card is not to be replaced unasked; None if it was written by us, or there is none."""
    path = folder / CARD
    if not path.exists():
        return None
    written = read_json(folder / RECORD).get("card_sha256")
    if written is None:
        return f"may be of your hand ({RECORD} does not say what was written)"
    return None if digest(path.read_bytes()) == written else "was changed by hand"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def problems_of(text: str, names: set[str]) -> list[str]:
    """
    Returns what a card must not be published with: fields that nobody has filled in, and links that lead nowhere.

    Args:
        names: Files that are published with it.
    """
    found = [f"`{name}` is not filled in" for name in dict.fromkeys(MARK.findall(text))]
    links = dict.fromkeys((first or second).removeprefix("./") for first, second in LINK.findall(text))
    found += [f"{link} is not published with it" for link in links if link not in names]
    try:
        metadata = ModelCard(text).data.to_dict()
    except Exception as error:  # of YAML, or of the Hub's own checks
        return [*found, f"its metadata cannot be read: {' '.join(str(error).split())}"]
    found += [f"its metadata have no {name}" for name in ("language", "license") if not metadata.get(name)]
    return found


def hub_results(folder: Path, facts: CardFacts) -> list[EvalResultEntry]:
    """
    Returns the scores in the form in which the Hub lists them beside a data set, which `facts.dataset_id` names: those
    of the test set, or else of the validation set if the run read it from there.
    """
    if facts.dataset_id is None:
        return []
    tested, scores, run = read_json(folder / TEST_RESULTS), scores_of(folder), read_json(folder / RECORD)
    split, notes, date = "validation", {}, run["date"]
    named_split = run.get("evaluated_split", split)
    if "test" in scores:
        split, named_split, date = "test", "test", tested.get("date", date)
        rows = rows_tested(tested)
        notes = {each: "; ".join(filter(None, (tested.get(f"{each}_signature"), *rows))) for each in scores[split]}
    if hub_name(facts, split, run["evaluated_on"]) is None:
        return []
    return [
        EvalResultEntry(
            dataset_id=facts.dataset_id,
            task_id=metric,
            value=round(value, 4),
            date=date,
            notes=notes.get(metric, f"on the {named_split} split") or None,
        )
        for metric, value in scores.get(split, {}).items()
    ]
