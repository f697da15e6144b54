# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The YAML header of a repository's README as the Hub reads it: what is wrong with it, and which tags it gives."""

import re

import yaml


# Not all that the Hub knows: those that a card of ours, or of a data set that we train on, may name.
LICENSES = re.compile(
    r"apache-2\.0|mit|isc|unlicense|wtfpl|bsd(-[23]-clause)?|cc|cc0-1\.0|cc-by(-nc)?(-sa|-nd)?-[2-4]\.0"
    r"|[al]?gpl(-[23]\.0)?|mpl-2\.0|odc-by|pddl|openrail|unknown|other"
)
SDKS = ("gradio", "docker", "static")
COLOURS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
HEADER = re.compile(r"\A\s*---\r?\n(.*?)^---\s*$", re.DOTALL | re.MULTILINE)


def read_header(text: str) -> dict:
    match = HEADER.match(text)
    return (yaml.safe_load(match.group(1)) or {}) if match else {}


def as_list(value) -> list:
    return value if isinstance(value, list) else [] if value is None else [value]


def find_errors(text: str, kind: str) -> list[str]:
    """One line for everything for which the Hub would refuse the card of a repository of this kind."""
    try:
        data = read_header(text)
    except yaml.YAMLError as error:
        return [f"the header is no YAML: {' '.join(str(error).split())}"]
    if not isinstance(data, dict):
        return ["the header is no mapping"]
    errors = [
        f'"license" is unknown: {each}' for each in as_list(data.get("license")) if not LICENSES.fullmatch(str(each))
    ]
    for language in as_list(data.get("language")):
        if not isinstance(language, str) or not re.fullmatch(r"[a-z]{2,3}(-[A-Za-z]+)?|multilingual|code", language):
            errors.append(f'"language" must be an ISO 639 code: {language!r}')
    for name in ("tags", "datasets", "metrics"):
        if any(not isinstance(each, str) for each in as_list(data.get(name))):
            errors.append(f'"{name}" must be strings: {data[name]!r}')
    for name in ("library_name", "pipeline_tag"):
        if not isinstance(data.get(name, ""), str):
            errors.append(f'"{name}" must be a string: {data[name]!r}')
    if kind == "space":
        return errors + find_space_errors(data)
    return errors + (find_result_errors(data.get("model-index")) if kind == "model" else [])


def find_space_errors(data: dict) -> list[str]:
    """The fields by which a Space is built and shown: those that are there must be right."""
    choices = {"sdk": SDKS, "colorFrom": COLOURS, "colorTo": COLOURS}
    errors = [
        f'"{name}" must be one of {", ".join(known)}'
        for name, known in choices.items()
        if data.get(name, known[0]) not in known
    ]
    # Unquoted, 3.10 is the number 3.1.
    texts = ("title", "sdk_version", "python_version", "app_file", "short_description")
    errors += [
        f'"{name}" must be a string: {data[name]!r}' for name in texts if not isinstance(data.get(name, ""), str)
    ]
    return errors + ['"short_description" is too long'] * (len(str(data.get("short_description", ""))) > 60)


def find_result_errors(models) -> list[str]:
    """The index of results is nested four deep, and the Hub asks for every name in it."""
    if models is None:
        return []
    if not isinstance(models, list):
        return ['"model-index" must be a list']
    errors = []
    for place, model in enumerate(models):
        if not isinstance(model, dict) or "name" not in model or not isinstance(model.get("results"), list):
            errors.append(f'"model-index[{place}]" needs a name and a list of results')
            continue
        for number, result in enumerate(model["results"]):
            where = f'"model-index[{place}].results[{number}]'
            errors += [f'{where}.{name}" is required' for name in missing(result)]
    return errors


def missing(result: dict) -> list[str]:
    required = {"task": ("type",), "dataset": ("name", "type")}
    lacks = [f"{name}.{key}" for name, keys in required.items() for key in keys if key not in (result.get(name) or {})]
    metrics = result.get("metrics") or [{}]
    return lacks + [f"metrics.{key}" for metric in metrics for key in ("type", "value") if key not in metric]


def find_tags(data: dict, files: dict[str, bytes], config: dict) -> list[str]:
    """What the Hub's filters find a repository by."""
    tags = [*as_list(data.get("library_name"))]
    tags += ["safetensors"] if any(path.endswith(".safetensors") for path in files) else []
    tags += as_list(config.get("model_type")) + as_list(data.get("pipeline_tag")) + as_list(data.get("tags"))
    tags += ["custom_code"] if "auto_map" in config else []
    tags += as_list(data.get("language"))
    tags += [f"dataset:{each}" for each in as_list(data.get("datasets"))]
    tags += [f"license:{each}" for each in as_list(data.get("license"))]
    return list(dict.fromkeys(tags))
