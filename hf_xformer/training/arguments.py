# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""What a training run is told: three dataclasses read from one flat YAML file and the command line."""

from dataclasses import dataclass, field
from typing import Any


def option(help: str, default=None, **more):
    """A dataclass field with the text that `--help` shows for it."""
    return field(default=default, metadata={"help": help, **more})


@dataclass
class ModelArguments:
    """Which model to train: a new one from `config_name`, or an existing one from `model_name_or_path`."""

    model_name_or_path: str | None = option("Checkpoint folder or Hub name of an existing model to go on training.")
    config_name: str | None = option(
        "A new model's configuration: a JSON file such as configs/model/tiny.json, a folder or a Hub name."
    )
    config_overrides: dict[str, Any] | str | None = option(
        "Fields of the new model's configuration to change, as 'd_model=256,encoder_layers=12'; in a recipe also a "
        "mapping. A field that does not exist is refused. Of an existing model: dropouts and label_smoothing."
    )
    tokenizer_name: str | None = option(
        "Tokenizer folder or Hub name, such as hf-xformer tokenizer writes. An existing model has its own."
    )
    target_tokenizer_name: str | None = option(
        "The target's tokenizer where it is not the source's. A target_tokenizer/ inside the source's folder is found."
    )
    attn_implementation: str | None = option(
        "eager, sdpa, flex_attention or flash_attention_2; else the library's choice, but eager for training short "
        "texts in bfloat16 on a CPU."
    )
    card_facts: str | None = option(
        "A YAML file of what the model card says beside the run's figures: language, licences, data, use, limits. See "
        "model_cards/g2p-quickstart.yaml."
    )
    ema_decay: float | None = option(
        "Keep an average of the weights that forgets so slowly, such as 0.999, evaluate with it and end with it."
    )
    lora_rank: int | None = option(
        "Leave the weights of --model_name_or_path as they are and train LoRA adapters of this rank, such as 8."
    )
    lora_alpha: int = option("What adapters add is multiplied by --lora_alpha / --lora_rank.", 16)
    lora_dropout: float = option("Dropout before the adapters.", 0.0)
    lora_target_modules: list[str] | None = option(
        "Names of the layers that get adapters, such as q_proj k_proj, or all-linear; else q_proj and v_proj, and of "
        "another kind of model what PEFT has for it."
    )


@dataclass
class DataArguments:
    """Which pairs to train and evaluate on, and how long they may be."""

    train_file: list[str] | None = option(
        "One JSONL, CSV, TSV or Parquet file, or two text files with a sentence a line, source first."
    )
    validation_file: list[str] | None = option("The same, for evaluation while training.")
    dataset_name: str | None = option("A folder or Hub name for datasets.load_dataset, instead of files.")
    dataset_config_name: str | None = option("The configuration of that dataset.")
    train_split: str = option("The dataset's split to train on.", "train")
    validation_split: str = option("The dataset's split to evaluate on.", "validation")
    source_column: str = option("The field or column that holds the source.", "source")
    target_column: str = option(
        "The one that holds the target: a text, or a list of equally good texts (JSONL, Parquet).", "target"
    )
    streaming: bool = option("Read the training data as they are needed; wants --max_steps.", False)
    max_source_length: int = option("Longest source, in tokens with the end token.", 256)
    max_target_length: int = option("Longest target, in tokens with the end token.", 256)
    overlong: str = option("What to do with longer training rows.", "truncate", choices=["truncate", "drop"])
    group_by_length: bool = option(
        "Batches of like length, in random order; not in a stream, nor with another --train_sampling_strategy.",
        True,
    )
    max_tokens: int | None = option(
        "Tokens of a batch on each side, padding included, instead of --per_device_train_batch_size pairs; not in a "
        "stream."
    )
    packing: bool = option(
        "Lay the pairs of a batch behind one another in one row, without padding between them; not in a stream. A "
        "batch has --max_tokens on each side or else --per_device_train_batch_size pairs.",
        False,
    )
    max_train_samples: int | None = option("Train on the first so many rows only.")
    max_eval_samples: int | None = option("Evaluate on the first so many rows only.")
    preprocessing_num_workers: int | None = option("Processes that tokenise.")
    metrics: list[str] | None = option("Metrics of the generated text: sacrebleu, chrf, exact_match, wer, per.")
