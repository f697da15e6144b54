# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Tables of speed and memory."""

from measuring import stored
from tabulating import TYPES, markdown, measured, table


STOCK = ("BART", "Marian", "T5", "T5Gemma")
OURS = "hf-xformer"
HALF = "train_step_base_bf16"
STEPS = {
    "train_step_base": "a step of 32 pairs of 4 to 64 tokens, 6+6 layers, d_model 512",
    HALF: "the same in bfloat16",
}
TRAININGS = {
    "train_e2e_multi30k_like": "whole trainings of texts as long as Multi30k's, 3+3 layers, d_model 256",
    "train_e2e_cmudict": "whole trainings of CMUdict's words, 3+3 layers, d_model 256, 64 entries",
}
QUICKSTART = "g2p-quickstart"  # the checkpoint of the tables of engines


def best_stock(rates: dict[str, float], ending: str = "") -> tuple[str, float]:
    """Returns the fastest stock model and its speed."""
    return max(((name, rates[name + ending]) for name in STOCK if name + ending in rates), key=lambda pair: pair[1])


@table
def train_steps() -> str:
    return train_table([*STEPS])


@table
def train_speed() -> str:
    others = "the others by `python benchmarks/train_e2e.py multi30k-like` and `cmudict`"
    return train_table([*STEPS, *TRAININGS], others)


def train_table(names: list[str], *about: str) -> str:
    """
    Returns the speeds of cases, by the names of their files.

    Args:
        about: More of the paragraph below.
    """
    results = {name: stored(name) for name in names}
    eager = results[HALF]["machine"]["attn_implementation"]
    rows = []
    for name, result in results.items():
        rates = result["rows"]
        stock, best = best_stock(rates)
        packed = rates[f"{OURS}, packed"]
        ours = f"{packed:,.0f}: {packed / best:.2f} times"
        title = (STEPS | TRAININGS)[name] + f", {eager} attention" * (name == HALF)
        rows.append([title, f"{best:,.0f} ({stock})", f"{rates[OURS]:,.0f}", ours])
    head = ["useful tokens per second on two cores", "best stock model", "ours, padded", "ours, packed"]
    first, *others = results.values()
    half = f"the second row also with `--bf16 --attn_implementation {eager}`"
    return markdown(head, rows, measured(first, "train_step.py base", *others), half, *about)


@table
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


@table
def decode_memory() -> str:
    result = stored("decode_memory")
    about = result["machine"]
    rows = [[name, f"{mib:,} MiB"] for name, mib in result["rows"].items()]
    title = f"{about['beams']} beams over a source of {about['length']:,} tokens"
    return markdown([title, "peak memory"], rows, measured(result, "decode_memory.py"))


@table
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
    command = "eole --eole ../eole-env --data Revisit-MMT/data/multi30k-en-de"
    size = eole["rows"].get("batch_size")
    before = "as it was then, each with its default batch: 30 sentences and about 100"
    batches = f"{size} at a time" if size else before
    by = [
        measured(commits, "decode_cli.py commits --old OLD --checkpoint RUN --input FILE", eole),
        f"the last row by `python benchmarks/decode_cli.py {command}`, {batches}",
    ]
    return markdown(head, rows, *by)


@table
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


@table
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


@table
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
    return markdown(["packed training in turn", ""], rows, measured(speed, "streams.py", memory))


@table
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


@table
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


@table
def gpu_loss() -> str:
    result = stored("gpu_loss")
    rows = [[row["name"], f"{1000 * row['seconds']:.0f}", f"{row['peak_mib']:,}"] for row in result["rows"]]
    return markdown(["loss and its gradients", "ms", "peak MiB"], rows, by_gpu(result))


def by_gpu(result: dict) -> str:
    return measured(result, result["machine"]["command"].removeprefix("benchmarks/"))


@table
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
    command = f"engines.py runs/{QUICKSTART} --test_file data/g2p/test.jsonl"
    return markdown(head, rows, measured(one, command, many), "also with `--batch_size 32`", *checkpoint_of(one, many))


@table
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
    command = f"quantization.py runs/{QUICKSTART} --test_file data/g2p/test.jsonl"
    return markdown(head, rows, measured(result, command), *checkpoint_of(result))


def checkpoint_of(*results: dict) -> list[str]:
    """Returns what must be said where figures are of another checkpoint than the one that the command names."""
    others = {result["machine"]["checkpoint"] for result in results} - {QUICKSTART}
    return [f"with an earlier checkpoint of the quickstart, in a folder named `{name}`" for name in sorted(others)]


@table
def versions() -> str:
    lanes = stored("versions").values()
    parts = ("fast", "conformance", "round_trip")
    rows = [[lane["transformers"], lane["torch"], *(f"{lane[part]['passed']:,}" for part in parts)] for lane in lanes]
    rows.sort(key=lambda row: [[int(number) for number in cell.split(".")] for cell in row[:2]])
    days = sorted({lane[part]["date"] for lane in lanes for part in parts})
    head = ["transformers", "torch", "fast tests", "conformance", "round trip"]
    return markdown(head, rows, f"`make test-versions`, {' to '.join(days)}, two cores, Python 3.11")
