# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Error rates of the quickstart's task by the methods that people ask for, at equal pairs: R-Drop, Muon, averages, BPE
dropout, distillation, beams, minimum Bayes risk decoding. With --ablation, by parts of the model and of the recipe.

  make quickstart                                          # prepares data/g2p
  python benchmarks/methods.py data/g2p --bf16             # three seeds: some four hours on two cores
  python benchmarks/methods.py data/g2p --bf16 --ablation  # as long again
  python benchmarks/methods.py data/g2p --seeds 0 --max_steps 20 --max_samples 100 --results build/tried

Every model sees as many pairs as the quickstart's, R-Drop's half as many twice; a distilled one has a teacher, whose
training does not count. Methods and defaults are chosen by these figures, so they are of the validation words, decoded
greedily where nothing else is said: the test words are for what was chosen. Rows are written as they come into
methods.json (ablation.json) in --results, and those that it has are not made again.
"""

import json
from functools import partial
from pathlib import Path

from tabulating import PRONUNCIATION, print_table
from verbs import (
    Figures,
    absolute,
    comparison_parser,
    deciding,
    digests_of,
    evaluate,
    first_rows,
    hf_xformer,
    read_lines,
    read_recipe,
    train,
    version_of,
)

from hf_xformer.files import fill_folder


RECIPE = "configs/train/g2p-quickstart.yaml"
STEPS = 2820  # of the quickstart, in three epochs
# Options of the commands that make data, by the kind of data.
MADE = {"subwords": ("--vocab_size", 600), "distilled": ("--num_beams", 5)}
MODEL = read_recipe(RECIPE)["config_overrides"]
THIN = {"config_overrides": MODEL | {"dropout": 0.1}}
# Two matrices of 576 have as many parameters as the model's three of 384.
WIDER = {"encoder_ffn_dim": 576, "decoder_ffn_dim": 576}
# Trainings: options beside the recipe's, by name. "data" and "share" of the steps are ours.
TRAININGS: dict[str, dict] = {
    "the recipe": {},
    "an average of the weights": {"ema_decay": 0.998},
    "Muon": {"optim": "muon"},
    "dropout of 0.1": THIN,
    "R-Drop": {**THIN, "r_drop": 1.0, "share": 0.5},
    "subwords": {"data": "subwords"},
    "subwords, BPE dropout": {"data": "subwords", "bpe_dropout": 0.1},
    "distilled": {"data": "distilled"},
}
# One thing other than in the recipe, at the recipe's learning rate where nothing else is said. Its model has rotary
# positions, RMSNorm before each sublayer and a gated SiLU.
ABLATION: dict[str, dict] = {"the recipe": {}} | {
    name: {"config_overrides": MODEL | fields}
    for name, fields in {
        "sinusoidal positions": {"position_embedding_type": "sinusoidal"},
        # As many as the longest word may need: more would count as parameters, and nothing would train them.
        "learned positions": {"position_embedding_type": "learned", "max_position_embeddings": 64},
        "relative positions": {"position_embedding_type": "relative"},
        "no positions": {"position_embedding_type": "none"},
        "norms behind the sublayers": {"norm_position": "post"},
        "norms before and behind": {"norm_position": "sandwich"},
        "LayerNorm": {"norm_type": "layernorm"},
        "ReLU, not gated": {"activation_function": "relu", "gated_ffn": False, **WIDER},
        "label smoothing of 0.1": {"label_smoothing": 0.1},
        "dropout of 0.1": {"dropout": 0.1},
        "1 decoder layer, 3 of the encoder": {"encoder_layers": 3, "decoder_layers": 1},
        "1 encoder layer, 3 of the decoder": {"encoder_layers": 1, "decoder_layers": 3},
    }.items()
}
RATE = read_recipe(RECIPE)["learning_rate"]
POST = "norms behind the sublayers"
ABLATION |= {
    f"{POST}, half the rate": {**ABLATION[POST], "learning_rate": RATE / 2},
    "padded": {"packing": False, "group_by_length": False},
    "padded, of like lengths": {"packing": False, "group_by_length": True},
}
# As many pairs in other batches than 128, the same share of them for the warm-up, and a rate that goes with the root.
ABLATION |= {
    f"batches of {size}": {
        "per_device_train_batch_size": size,
        "share": 128 / size,
        "warmup_steps": 200 * 128 // size,
        "learning_rate": RATE * (size / 128) ** 0.5,
    }
    for size in (32, 512)
}
# Ways to decode with the recipe's own model: options of `hf-xformer evaluate`.
DECODINGS = {
    "the recipe, 5 beams": ["--num_beams", "5"],
    "the recipe, MBR of 5 beams": ["--num_beams", "5", "--mbr", "per"],
    "the recipe, MBR of 16 samples": ["--do_sample", "--top_k", "0", "--num_return_sequences", "16", "--mbr", "per"],
}
TEACHER = "the recipe"
METHODS: dict[str, object] = {**TRAININGS, **ABLATION, **DECODINGS}


def kind_of(method: str) -> str:
    """Returns the kind of data that a method trains on; "" for the quickstart's own."""
    return TRAININGS.get(method, {}).get("data", "")


def options_of(method: str) -> object:
    """Returns what makes a method another one: its options, and those of the commands that make its data."""
    kind = kind_of(method)
    return [METHODS[method], MADE[kind]] if kind else METHODS[method]


def steps_of(method: str, steps: int) -> int:
    """Returns the steps of a method's training, where the recipe's has so many."""
    share = (TRAININGS | ABLATION).get(method, {}).get("share", 1)
    return max(1, round(steps * share))


class Bench:
    """
    Trainings and their data in a folder.

    Args:
        data: Folder of the quickstart's rows and tokenizer.
        folder: Where everything goes.
        steps: Of a training.
        samples: Words that are scored; None for all.
        bf16: Whether to train in bfloat16.
    """

    def __init__(self, data: Path, folder: Path, steps: int, samples: int | None, bf16: bool):
        self.folder, self.steps, self.samples, self.bf16 = folder, steps, samples, bf16
        self.data = {"": data}

    def data_of(self, kind: str, seed: int) -> Path:
        """Returns the folder of the rows of a kind, made if need be."""
        if not kind:
            return self.data[""]
        name = f"{kind}-{seed}" if kind == "distilled" else kind
        # By another teacher or other options, or from other words, it would be other data.
        name += f"-{version_of([deciding(RECIPE), self.steps, self.bf16, MADE[kind], digests_of(self.data[''])])}"
        if name not in self.data:
            made = self.folder / "data" / name
            if not made.exists():
                fill = self.distil if kind == "distilled" else self.join
                fill_folder(made, partial(fill, seed))
            self.data[name] = made
        return self.data[name]

    def join(self, seed: int, made: Path) -> None:
        """Writes rows whose sources are whole words, and a tokenizer of subwords."""
        for split in ("train", "validation"):
            rows = [json.loads(line) for line in read_lines(self.data[""] / f"{split}.jsonl")]
            joined = [{**row, "source": row["source"].replace(" ", "")} for row in rows]
            (made / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in joined), encoding="utf-8")
        train = ("--train_file", made / "train.jsonl", "--model_type", "bpe", *MADE["subwords"])
        hf_xformer("tokenizer", *train, "--output_dir", made / "tokenizer")

    def distil(self, seed: int, made: Path) -> None:
        """Writes the training words with the pronunciations of the recipe's own model."""
        teacher = self.train(TEACHER, seed)
        out = ("--output_file", made / "train.jsonl", *MADE["distilled"])
        hf_xformer("distill", teacher, "--train_file", self.data[""] / "train.jsonl", *out)
        for name in ("validation.jsonl", "tokenizer"):
            (made / name).symlink_to(self.data[""] / name)

    def train(self, name: str, seed: int) -> Path:
        """Returns the folder of a training, which is done if need be."""
        options = dict((TRAININGS | ABLATION)[name])
        data = self.data_of(options.pop("data", ""), seed)
        options.pop("share", None)
        run = self.folder / "runs" / f"{name.replace(' ', '-')}-{seed}"
        options |= {"max_steps": steps_of(name, self.steps), "seed": seed, "bf16": self.bf16}
        options |= {"train_file": str(data / "train.jsonl"), "tokenizer_name": str(data / "tokenizer")}
        options |= {"validation_file": str(data / "validation.jsonl"), "eval_strategy": "no", "save_strategy": "no"}
        train(read_recipe(RECIPE) | options | {"load_best_model_at_end": False}, run)
        return run

    def score(self, run: Path, data: Path, *decoding: str) -> dict[str, float]:
        """Returns the error rates of a run on the validation words, its parameters, steps and seconds."""
        found = evaluate(run, data / "validation.jsonl", PRONUNCIATION, *decoding, *first_rows(self.samples))
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
        scores = {name: round(found[name], 3) for name in PRONUNCIATION}
        about = {"parameters": record["parameters"], "steps": record["steps"], "seconds": round(record["seconds"], 1)}
        return scores | about

    def measure(self, name: str, seed: int) -> dict[str, float]:
        """Returns the figures of one method."""
        if name in DECODINGS:
            return self.score(self.train(TEACHER, seed), self.data[""], *DECODINGS[name])
        return self.score(self.train(name, seed), self.data_of(kind_of(name), seed))


def main() -> None:
    parser = comparison_parser(__doc__, seeds=[0, 1, 2], output_dir="runs/methods")
    parser.add_argument("data", type=absolute, help="folder of the quickstart's rows and tokenizer")
    parser.add_argument("--ablation", action="store_true", help="parts of model and recipe, in place of the methods")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="default: all of the methods, or of the parts")
    parser.add_argument("--max_steps", type=int, default=STEPS, help=f"of a training (default {STEPS})")
    parser.add_argument("--max_samples", type=int, help="validation words (default: all)")
    args = parser.parse_args()
    known = list(ABLATION) if args.ablation else [*TRAININGS, *DECODINGS]
    if unknown := {*(args.methods or ())} - {*known}:
        parser.error(f"no such method: {', '.join(sorted(unknown))}; there are {'; '.join(known)}")
    about = {"steps": args.max_steps, "samples": args.max_samples, "bf16": args.bf16}
    name = "ablation" if args.ablation else "methods"
    reads = [args.data / each for each in ("train.jsonl", "validation.jsonl", "tokenizer")]
    figures = Figures(name, deciding(RECIPE), args.results, reads, **about)
    bench = Bench(args.data, args.output_dir, args.max_steps, args.max_samples, args.bf16)
    for seed in args.seeds:
        for method in args.methods or known:
            of, options = {"method": method, "seed": seed}, options_of(method)
            if not figures.has(of, options):
                figures.add(of, options, **bench.measure(method, seed))
    print_table([row for row in figures.rows() if row["seed"] in args.seeds], "method", PRONUNCIATION)


if __name__ == "__main__":
    main()
