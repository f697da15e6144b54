# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Tables of the documents, from the figures in benchmarks/results: nobody types them.

  python benchmarks/tables.py            # writes them into README.md and docs/*.md
  python benchmarks/tables.py --check    # says which are not those of the stored figures

A table stands between `<!-- table NAME -->` and `<!-- end of table -->` on a page, and NAME is a function of this
file. Under each is the command that gave its figures, the day and the machine.
"""

import argparse
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from measuring import spread, stored


ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end of table -->\n)", re.DOTALL)
STOCK = ("BART", "Marian", "T5", "T5Gemma")
OURS = "hf-xformer"
TYPES = ("float32", "bfloat16")
PRONUNCIATION = {"wrong_words": "wrong words, %", "per": "PER, %"}

Cells = Iterable[str]


def markdown(head: Cells, rows: Iterable[Cells], *about: str) -> str:
    """Returns a table in Markdown, with a paragraph below it on what gave it."""
    head = list(head)
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])
    return f"\n{table}\n\n{'; '.join(about)}.\n\n"


def measured(result: dict, command: str) -> str:
    """Returns in words by which command, when and on which machine figures were taken."""
    machine = result["machine"]
    flags = {"avx512_bf16": "bfloat16", "avx512_vnni": "VNNI"}
    has = [flags[flag] for flag in machine.get("processor", ()) if flag in flags]
    where = machine.get("card") or f"{machine['cores']} cores" + (f" with {' and '.join(has)}" if has else "")
    libraries = f"torch {machine['torch'].partition('+')[0]}, transformers {machine['transformers']}"
    return f"`python benchmarks/{command}`, {machine['date']}, {where}, {libraries}"


def best_stock(rates: dict[str, float], ending: str = "") -> tuple[str, float]:
    """Returns the fastest stock model and its speed."""
    return max(((name, rates[name + ending]) for name in STOCK if name + ending in rates), key=lambda pair: pair[1])


STEPS = {
    "train_step_base": "a step of 32 pairs of 4 to 64 tokens, 6+6 layers, d_model 512",
    "train_step_base_bf16": "the same in bfloat16, eager attention",
}


def train_steps() -> str:
    return train_table(STEPS, "the second row also with `--bf16 --attn_implementation eager`")


def train_speed() -> str:
    cases = STEPS | {
        "train_e2e_multi30k_like": "whole trainings of texts as long as Multi30k's, 3+3 layers, d_model 256",
        "train_e2e_cmudict": "whole trainings of CMUdict's words, 3+3 layers, d_model 256, 64 entries",
    }
    others = "the others by `python benchmarks/train_e2e.py`"
    return train_table(cases, "the second row also with `--bf16 --attn_implementation eager`", others)


def train_table(cases: dict[str, str], *about: str) -> str:
    """Returns the speeds of cases, which are titles of rows by their files' names."""
    rows = []
    for name, title in cases.items():
        rates = stored(name)["rows"]
        stock, best = best_stock(rates)
        packed = rates[f"{OURS}, packed"]
        ours = f"{packed:,.0f}: {packed / best:.2f} times"
        rows.append([title, f"{best:,.0f} ({stock})", f"{rates[OURS]:,.0f}", ours])
    head = ["useful tokens per second on two cores", "best stock model", "ours, padded", "ours, packed"]
    return markdown(head, rows, measured(stored("train_step_base"), "train_step.py base"), *about)


def decode_base() -> str:
    result = stored("decode_base")
    ways = {"greedy": "greedy, one source", "beams": "4 beams, 8 sources"}
    rows = []
    for way, title in ways.items():
        rates = {row["name"]: row["rate"] for row in result["rows"] if row["way"] == way}
        for dtype in TYPES:
            stock, best = best_stock(rates, f" {dtype}")
            ours = rates[f"{OURS} {dtype}"]
            cells = [f"{title}, {dtype}", f"{best} ({stock})", f"{ours}: {ours / best:.2f} times"]
            cells.append(f"{rates[f'{OURS}, compiled {dtype}']}")
            own = (f"{OURS}, int8", "CTranslate2", "CTranslate2 int8") if dtype == TYPES[0] else ()
            rows.append([*cells, *(f"{rates[name]}" for name in own), *[""] * (3 - len(own))])
    head = ["new tokens per second", "best stock model", "ours", "compiled", "8 bits", "CTranslate2"]
    return markdown([*head, "CTranslate2, 8 bits"], rows, measured(result, "decode.py base --rounds 3"))


def decode_memory() -> str:
    result = stored("decode_memory")
    about = result["machine"]
    rows = [[name, f"{mib:,} MiB"] for name, mib in result["rows"].items()]
    title = f"{about['beams']} beams over a source of {about['length']:,} tokens"
    return markdown([title, "peak memory"], rows, measured(result, "decode_memory.py"))


def decode_cli() -> str:
    commits, eole = stored("decode_cli_commits"), stored("decode_cli_eole")
    (old, new), (theirs, ours) = commits["rows"]["runs"], eole["rows"]["runs"]
    lines = f"{commits['rows']['lines']:,} lines of one to five words, the quickstart's model, greedy"
    rows = [
        [lines, f"the version before, {old['seconds']:.1f} s", f"{new['seconds']:.1f} s"],
        ["until the first line of them", f"{old['first']:.1f} s", f"{new['first']:.1f} s"],
        [
            "Multi30k's 1,000 test sentences, 5 beams",
            f"eole 0.6, {theirs['seconds']:.1f} s",
            f"{ours['seconds']:.1f} s",
        ],
    ]
    head = ["the whole command, start included", "", "`hf-xformer generate`"]
    by = [measured(commits, "decode_cli.py commits"), "the last row by `python benchmarks/decode_cli.py eole`"]
    return markdown(head, rows, *by)


def memory() -> str:
    result = stored("memory")
    most = max(row["tokens"] for row in result["rows"])
    sizes = sorted({row["vocabulary"] for row in result["rows"]})
    found = {(row["model"], row["vocabulary"]): row for row in result["rows"] if row["tokens"] == most}

    def cell(row: dict) -> str:
        return f"{row['mib']:,} MiB" + ("" if row["ran"] else " (not run; from fewer tokens)")

    rows = [[model, *(cell(found[model, size]) for size in sizes)] for model in ("BART", OURS)]
    head = [f"peak memory of a step of {most:,} target tokens", *(f"{size:,} entries" for size in sizes)]
    return markdown(head, rows, measured(result, "memory.py"))


def long_input() -> str:
    result = stored("long_input")
    names = {
        "blocks": "blocks of 256, shifted",
        "blocks, 16 global tokens": "the same and 16 global tokens",
        "windows": "windows of 127 to either side",
        "full": "full attention (sdpa)",
        "without attention": "the same model without attention",
        "LongT5": "LongT5, local radius 127",
        "LED": "LED, window of 256",
    }
    lengths = {length: result["rows"]["models"][length] for length in ("4096", "16384", "65536")}
    rows = [
        [
            title,
            *(
                f"{row[name]['seconds']:.3g} s, {row[name]['mib']:,} MiB" if name in row else ""
                for row in lengths.values()
            ),
        ]
        for name, title in names.items()
    ]
    head = ["two layers, d_model 256, forward and backward", *(f"{int(length):,} tokens" for length in lengths)]
    return markdown(head, rows, measured(result, "long_input.py --rounds 2"))


def long_text() -> str:
    result = stored("long_text")
    names = {"full": "full attention", "block": "blocks of 256, shifted; windows of 256 in the decoder"}
    rows = [
        [
            names[row["model"]],
            f"{row['validation_loss']:.3f}",
            f"{row['training_seconds']:,.0f} s",
            f"{row['peak_memory_mib']:,} MiB",
        ]
        for row in result["rows"]
    ]
    head = [f"{result['rows'][0]['steps']} steps of a chapter each", "validation loss per byte", "training"]
    return markdown([*head, "peak memory"], rows, measured(result, "long_text.py"), "one seed")


def recipe_quickstart() -> str:
    return recipe("g2p-quickstart", PRONUNCIATION)


def recipe_pronasyl() -> str:
    return recipe("g2p-pronasyl", PRONUNCIATION, "`make reproduce-g2p`: ")


def recipe_multi30k() -> str:
    metrics = {"sacrebleu": "BLEU", "chrf": "chrF", "raw_bleu": "BLEU, raw text", "raw_chrf": "chrF, raw text"}
    return recipe("multi30k-en-de", metrics, "`make reproduce-multi30k`: ")


def recipe(name: str, metrics: dict[str, str], made: str = "") -> str:
    """Returns the scores of a recipe's models by their decoding: mean and spread over the seeds, and those of each."""
    result = stored(f"recipe_{name}")
    found = result["rows"]
    metrics = {name: title for name, title in metrics.items() if all(name in row for row in found)}
    rows = []
    for decoding, *means in over_seeds(found, "decoding", metrics):
        first = [f"{row[next(iter(metrics))]:.2f}" for row in found if row["decoding"] == decoding]
        rows.append([decoding, *means, ", ".join(first)] if len(first) > 1 else [decoding, *means])
    head = [f"{found[0]['parameters'] / 1e6:.2f} M parameters, {found[0]['steps']:,} steps", *metrics.values()]
    if len(rows[0]) > len(head):
        head.append(f"{head[1]} of each seed")
    seconds = {row["seed"]: row["seconds"] for row in found}.values()
    minutes = dict.fromkeys(f"{each / 60:,.0f}" for each in (min(seconds), max(seconds)))
    took = f"a training took {' to '.join(minutes)} min on {found[0]['hardware']}"
    command = f"recipes.py {name}{' --bf16' * result['machine']['bf16']}"
    return markdown(head, rows, made + measured(result, command), took, seeds_of(found))


def length_generalisation() -> str:
    result = stored("length_generalisation")
    lengths = ("1 to 40", "41 to 60", "61 to 80", "81 to 120")
    rows = []
    for task in dict.fromkeys(row["task"] for row in result["rows"]):
        of_task = [row for row in result["rows"] if row["task"] == task]
        rows += [[task, *cells] for cells in over_seeds(of_task, "positions", lengths)]
    head = ["task", "positions", *(f"{length} symbols, %" for length in lengths)]
    return markdown(head, rows, measured(result, "length_generalisation.py"), seeds_of(result["rows"]))


def toolkits() -> str:
    rows, results = [], [stored("toolkits"), stored("toolkits_bf16")]
    for result, dtype in zip(results, TYPES, strict=True):
        times = sorted({row["minutes"] for row in result["rows"]})
        for name in dict.fromkeys(row["toolkit"] for row in result["rows"]):
            found = {row["minutes"]: row for row in result["rows"] if row["toolkit"] == name}
            last = found[times[-1]]
            speed, updates = (f"{last[key]:,}" for key in ("target_tokens_per_second", "updates"))
            rows.append([f"{name}, {dtype}", speed, updates, *(f"{found[minute]['bleu']:.1f}" for minute in times)])
    head = [f"{times[-1]:g} minutes of training", "target tokens/s", "updates"]
    head += [f"BLEU after {minute:g} min" for minute in times]
    command = "toolkits.py --data multi30k-en-de-bpe --joey ../joey-env --eole ../eole-env"
    return markdown(head, rows, measured(results[0], command), "bfloat16 also with `--bf16`", "one seed")


def methods() -> str:
    return by_method("methods", "methods.py data/g2p --bf16")


def ablation() -> str:
    return by_method("ablation", "methods.py data/g2p --bf16 --ablation")


def by_method(name: str, command: str) -> str:
    """Returns the error rates of the quickstart's task by the method."""
    result = stored(name)
    head = [f"{result['machine']['steps']:,} steps", *PRONUNCIATION.values()]
    rows = over_seeds(result["rows"], "method", PRONUNCIATION)
    return markdown(head, rows, measured(result, command), seeds_of(result["rows"]))


def pretraining() -> str:
    result = stored("pretraining")
    before, after = (f"{result['machine'][name]:,}" for name in ("pretrain_steps", "finetune_steps"))
    head = [f"{before} steps on plain text, {after} on pairs", "validation loss", "CER, %", "exact match, %"]
    rows = over_seeds(result["rows"], "start", ["loss", "cer", "exact_match"])
    return markdown(head, rows, "`make pretraining`: " + measured(result, "pretraining.py"), seeds_of(result["rows"]))


def languages() -> str:
    result = stored("languages")
    rows = []
    for language, name in {"de": "German", "fr": "French", "it": "Italian"}.items():
        found = [row for row in result["rows"] if language in row]
        alone, together = (
            spread((row[language] for row in found if (row["model"] == language) is is_alone), 1)
            for is_alone in (True, False)
        )
        rows.append([f"English to {name}", alone, together])
    head = [f"chrF after {result['machine']['steps']:,} steps", "a model of the pair alone", "one model of all three"]
    return markdown(
        head, rows, "`make languages`: " + measured(result, "languages.py --bf16"), seeds_of(result["rows"])
    )


def streams() -> str:
    speed, memory = stored("streams_speed"), stored("streams_memory")
    kept, read = (speed["rows"][name] for name in ("memory", "stream"))
    pairs = [f"{stream / rows:.2f}" for rows, stream in zip(kept, read, strict=True)]
    mib = memory["rows"]["mib"]
    rows = [
        ["source and target tokens a second, rows in memory", ", ".join(f"{each:,.0f}" for each in kept)],
        ["the same as a stream", ", ".join(f"{each:,.0f}" for each in read)],
        ["stream / memory", f"{', '.join(pairs)}: {speed['rows']['ratio']:.2f}, the middle one"],
        [f"memory of the reader, at each tenth of {memory['rows']['rows']:,} rows", f"{min(mib)} to {max(mib)} MiB"],
    ]
    return markdown(["packed training in turn", ""], rows, measured(speed, "streams.py"))


def over_seeds(rows: list[dict], by: str, columns: Cells) -> Iterable[Cells]:
    """Yields for each value of a key its mean and spread over the rows that have it, in several columns."""
    for value in dict.fromkeys(row[by] for row in rows):
        found = [row for row in rows if row[by] == value]
        yield [value, *(spread(row[name] for row in found) for name in columns)]


def seeds_of(rows: list[dict]) -> str:
    """Returns in words how many seeds there are."""
    count = len({row["seed"] for row in rows})
    return f"{count} seeds, mean and standard deviation" if count > 1 else "one seed"


def gpu_train_base() -> str:
    result = stored("gpu_train_base")
    ran = [row for row in result["rows"] if "failed" not in row]
    rows = [
        [
            row["name"],
            f"{row['useful_tokens_per_second']:,.0f}",
            f"{100 * row['model_flops_utilisation']:.1f} %",
            f"{row['peak_mib']:,}",
        ]
        for row in sorted(ran, key=lambda row: -row["useful_tokens_per_second"])
    ]
    head = ["training", "useful tokens/s", "model-FLOPs utilisation", "peak MiB"]
    return markdown(head, rows, by_gpu(result))


def gpu_decode() -> str:
    result = stored("gpu_decode")
    rates = {row["name"]: row["tokens_per_second"] for row in result["rows"] if "failed" not in row}
    ways = ("greedy, batch 1", "greedy, batch 128", "4 beams, batch 8")
    models = (OURS, "BART", "T5", "T5Gemma")
    rows = [
        [
            way,
            *(f"{rates[name]:,.0f}" if (name := f"{model}, {way}, eager") in rates else "not run" for model in models),
        ]
        for way in ways
    ]
    return markdown(["new tokens per second, not compiled", *models], rows, by_gpu(result))


def gpu_loss() -> str:
    result = stored("gpu_loss")
    rows = [[row["name"], f"{1000 * row['seconds']:.0f}", f"{row['peak_mib']:,}"] for row in result["rows"]]
    return markdown(["loss and its gradients", "ms", "peak MiB"], rows, by_gpu(result))


def by_gpu(result: dict) -> str:
    return measured(result, result["machine"]["command"].removeprefix("benchmarks/"))


def engines() -> str:
    one, many = stored("engines_1"), stored("engines_32")
    rows = [
        [
            name,
            f"{figures['words_per_second']:,.0f}",
            f"{many['rows'][name]['words_per_second']:,.0f}",
            f"{figures['equal_words']}",
        ]
        for name, figures in one["rows"].items()
    ]
    head = ["words per second", "one at a time", "32 at a time", f"equal words in {one['machine']['samples']}"]
    command = "engines.py runs/g2p-quickstart --test_file data/g2p/test.jsonl"
    return markdown(head, rows, measured(one, command), "also with `--batch_size 32`")


def quantization() -> str:
    result = stored("quantization")
    rows = [
        [
            name,
            f"{figures['wrong_words']:.2f} %",
            f"{figures['texts_per_second']:,.0f}",
            f"{figures['megabytes']:.1f} MB",
        ]
        for name, figures in result["rows"].items()
    ]
    head = [f"{result['machine']['samples']:,} test words", "wrong words", "words per second, 64 at a time", "weights"]
    return markdown(
        head, rows, measured(result, "quantization.py runs/g2p-quickstart --test_file data/g2p/test.jsonl")
    )


def versions() -> str:
    lanes = stored("versions").values()
    parts = ("fast", "conformance", "round_trip")
    rows = [[lane["transformers"], lane["torch"], *(f"{lane[part]['passed']:,}" for part in parts)] for lane in lanes]
    rows.sort(key=lambda row: [[int(number) for number in cell.split(".")] for cell in row[:2]])
    days = sorted({lane[part]["date"] for lane in lanes for part in parts})
    head = ["transformers", "torch", "fast tests", "conformance", "round trip"]
    return markdown(head, rows, f"`make test-versions`, {' to '.join(days)}, two cores, Python 3.11")


TABLES: dict[str, Callable[[], str]] = {
    each.__name__: each
    for each in (
        train_speed,
        train_steps,
        decode_base,
        decode_memory,
        decode_cli,
        memory,
        long_input,
        long_text,
        recipe_quickstart,
        recipe_pronasyl,
        recipe_multi30k,
        ablation,
        length_generalisation,
        toolkits,
        methods,
        pretraining,
        languages,
        streams,
        gpu_train_base,
        gpu_decode,
        gpu_loss,
        engines,
        quantization,
        versions,
    )
}


def filled(page: str) -> str:
    """Returns a page whose tables have the stored figures."""
    return BLOCK.sub(lambda block: block[1] + TABLES[block[2]]() + block[3], page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a table is another")
    args = parser.parse_args()
    stale = []
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        page = path.read_text(encoding="utf-8")
        if filled(page) == page:
            continue
        stale.append(path.name)
        if not args.check:
            path.write_text(filled(page), encoding="utf-8")
            print(path)
    if args.check and stale:
        raise SystemExit(
            f"{', '.join(stale)}: tables are not those of benchmarks/results; python {__file__} writes them"
        )


if __name__ == "__main__":
    main()
