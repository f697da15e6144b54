# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Model cards: `README.md` of a checkpoint's folder, made of what a run has recorded and of what only people know.

The run's part is in `run.json` and `*_results.json`; people's part is a YAML file such as those in model_cards/, one a
recipe. What neither says is marked in the card, and a card with a mark is not published.
"""

import hashlib
import re
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path

import jinja2
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, ModelCardData

from ..errors import ArgumentError
from ..files import ATTENTION, CARD, CARD_TEMPLATE, CURVES, RECORD, TARGET_TOKENIZER, find, read_json, read_yaml
from .curves import TIMINGS
from .record import update_record


TO_FILL_IN = "to fill in: "
# Watts of what computes, as far as people do not say: one GPU, or one core of a CPU with its share of the machine.
WATTS = {"gpu": 400, "cpu": 10}
# Of Markdown and of HTML, what leads to a file beside the card.
ELSEWHERE = r"(?!https?://|mailto:|#)"
LINK = re.compile(rf"""\]\({ELSEWHERE}([^)\s]+)\)|(?:src|href)=["']{ELSEWHERE}([^"'\s]+)["']""")
MARK = re.compile(rf"\[{TO_FILL_IN}(\w+)\]")


@dataclass(frozen=True)
class CardFacts:
    """
    What only people know of a model.

    Args:
        summary: What it does, in a sentence.
        language: Codes of two or three letters, one or a list.
        license: Of the weights, as the Hub spells it, such as "apache-2.0".
        data: What it was trained on, and how that was divided.
        data_license: Of the data.
        intended_use: What it is for.
        limits: What it cannot do, and what it should not be used for.
        data_url: Where the data come from.
        dataset_id: Of the data set on the Hub that the scores are of, under which the Hub lists them.
        example: A source text to show it with.
        watts: Of all devices together; by default a guess.
        carbon_intensity: Grams of CO2 equivalent a kWh; by default the world's mean of 2023 (Ember 2024).
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


REQUIRED = tuple(each.name for each in fields(CardFacts) if each.default is MISSING)


def read_facts(path: str | Path | None) -> CardFacts:
    """
    The facts of a YAML file; a mark stands for each that is required and is not there.

    Raises:
        ArgumentError: The file cannot be read, or has a field that there is none of.
    """
    given = {}
    if path is not None:
        given = read_yaml(find(path), f"--card_facts {path}")
        if not isinstance(given, dict):
            raise ArgumentError(f"--card_facts {path}: expected lines of 'field: text'")
    known = [each.name for each in fields(CardFacts)]
    if unknown := [name for name in given if name not in known]:
        raise ArgumentError(
            f"--card_facts {path}: no field {', '.join(map(str, unknown))}; there are {', '.join(known)}"
        )
    for name in ("watts", "carbon_intensity"):
        if name in given and not (isinstance(given[name], int | float) and given[name] > 0):
            raise ArgumentError(f"--card_facts {path}: {name} must be a number above 0, got {given[name]!r}")
    marks = {name: f"[{TO_FILL_IN}{name}]" for name in REQUIRED if not given.get(name)}
    return CardFacts(**{**given, **marks})


def facts_of(record: dict) -> CardFacts:
    """The facts that a run was given, with marks if it was given none; those of another version are left out."""
    known, given = {each.name for each in fields(CardFacts)}, record.get("facts", {})
    return replace(read_facts(None), **{name: given[name] for name in given if name in known})


def missing_facts(facts: CardFacts) -> list[str]:
    return [name for name in REQUIRED if MARK.search(str(getattr(facts, name)))]


def scores_of(folder: Path) -> dict[str, dict[str, float]]:
    """`{"validation": {metric: value}, "test": {...}}`, of the evaluations that there were."""
    validation = {
        name.removeprefix("eval_"): value
        for name, value in read_json(folder / "eval_results.json").items()
        if name.startswith("eval_") and name.removeprefix("eval_") not in (*TIMINGS, "samples")
    }
    tested = read_json(folder / "test_results.json")
    test = {name: tested[name] for name in tested.get("metrics", []) if name in tested}
    return {split: scores for split, scores in (("validation", validation), ("test", test)) if scores}


def render(folder: Path, facts: CardFacts, name: str) -> ModelCard:
    """
    The card of a run's folder.

    Args:
        name: What readers load the model by: the folder's path, or its name on the Hub.

    Raises:
        ArgumentError: The folder has no record of a run, or one that this version does not know.
    """
    run, tested = read_json(folder / RECORD), read_json(folder / "test_results.json")
    if not run:
        raise ArgumentError(f"{folder}: no {RECORD} there, which training writes, to fill a card from")
    template = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(find(CARD_TEMPLATE).read_text("utf-8"))
    try:
        evaluated_on = {"validation": run["evaluated_on"], "test": ", ".join(tested.get("test_file", []))}
        scores, footprint = scores_of(folder), Footprint.of(run, facts)
        text = template.render(
            card_data=metadata_of(run, facts, name, scores, evaluated_on, footprint).to_yaml(),
            name=name,
            title=name.rpartition("/")[2],
            facts=facts,
            run=run,
            scores=scores,
            evaluated_on=evaluated_on,
            signatures={each: tested[each] for each in tested if each.endswith("_signature")},
            decoding=tested.get("decoding") or {},
            first_rows=f", its first {tested['max_samples']:,} rows" if tested.get("max_samples") else "",
            has_code=(folder / "config.json").exists() and run["is_xformer"],
            has_target=(folder / TARGET_TOKENIZER).is_dir(),
            pictures=[each for each in (CURVES, ATTENTION) if (folder / each).exists()],
            footprint=footprint,
        )
    except (KeyError, jinja2.UndefinedError) as error:
        raise ArgumentError(
            f"{folder / RECORD}: not what this version writes: {error}; start the run again"
        ) from error
    return ModelCard(text)


@dataclass(frozen=True)
class Footprint:
    """What a training took: seconds as measured, watts as said or guessed, and grams of CO2 equivalent that follow."""

    seconds: float
    watts: float
    carbon_intensity: float  # grams a kWh

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
    """The card's header, by which the Hub sorts models."""
    base = run["base_model"]
    return ModelCardData(
        language=facts.language,
        license=facts.license,
        library_name="peft" if run["adapter_parameters"] else "transformers",
        tags=["hf-xformer", "encoder-decoder", "seq2seq"],
        base_model=None if base is None or Path(base).exists() else base,
        datasets=facts.dataset_id,
        model_name=name.rpartition("/")[2],
        eval_results=[
            EvalResult(
                task_type="text2text-generation",
                dataset_type=facts.dataset_id or Path(evaluated_on[split]).stem,
                dataset_name=evaluated_on[split],
                dataset_split=split,
                metric_type=metric,
                metric_value=round(value, 4),
            )
            for split, values in scores.items()
            for metric, value in values.items()
        ],
        co2_eq_emissions={
            "emissions": float(f"{footprint.grams:.3g}"),
            "source": f"{footprint.watts:g} W for the measured time, {footprint.carbon_intensity:g} g a kWh",
            "hardware_used": run["hardware"]["name"],
        },
    )


def write_card(folder: Path, facts: CardFacts, overwrite: bool = False) -> None:
    """
    Writes the card and remembers it, so that one that people have changed since is not written over.

    Raises:
        ArgumentError: It was changed by hand, and `overwrite` does not say to do it all the same.
    """
    card = render(folder, facts, str(folder))
    if not overwrite and is_edited(folder):
        raise ArgumentError(f"{folder / CARD} was changed by hand; --overwrite writes it anew")
    card.save(folder / CARD)
    written = digest((folder / CARD).read_bytes())
    update_record(folder, {"facts": vars(facts), "card_name": str(folder), "card_sha256": written})


def is_edited(folder: Path) -> bool:
    path = folder / CARD
    return path.exists() and digest(path.read_bytes()) != read_json(folder / RECORD).get("card_sha256")


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def problems_of(text: str, names: set[str]) -> list[str]:
    """
    What a card must not be published with: fields that nobody has filled in, and links that lead nowhere.

    Args:
        names: Of the files that are published with it.
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
    The scores in the form in which the Hub lists them beside a data set, which has to be there: those of the test set,
    or of the validation set where none was tested; none without a `dataset_id`.
    """
    if facts.dataset_id is None:
        return []
    tested = read_json(folder / "test_results.json")
    return [
        EvalResultEntry(
            dataset_id=facts.dataset_id,
            task_id=metric,
            value=round(value, 4),
            date=read_json(folder / RECORD)["date"],
            notes=tested.get(f"{metric}_signature") if split == "test" else f"on the {split} split",
        )
        for split, values in list(scores_of(folder).items())[-1:]
        for metric, value in values.items()
    ]
