# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Options of a training run beside the Trainer's: dataclasses, whose help texts are the documentation of recipes."""

from dataclasses import dataclass, field
from typing import Any

from transformers import TrainingArguments

from ..data.bad_rows import POLICIES, SHORTEST, Unwanted
from ..data.encoding import LITERAL, READ
from ..decoding.scoring import NFC, UNICODE_FORMS


# The Trainer's option that keeps only the layers' inputs; up to 5.22 by the name that is deprecated since.
CHECKPOINTING = "activation_checkpointing"
if CHECKPOINTING not in TrainingArguments.__dataclass_fields__:
    CHECKPOINTING = "gradient_checkpointing"
# Options for which chance decides what a row is, whenever it is read.
CHANCE = ("objective", "bpe_dropout", "unigram_sampling", "source_word_dropout", "case_noise")


def option(help: str, default=None, **more):
    """Returns a dataclass field with the text that `--help`, the JSON schema and the documents show for it."""
    return field(default=default, metadata={"help": help, **more})


@dataclass
class ModelArguments:
    """Which model to train: a new one from `config_name`, or an existing one from `model_name_or_path`."""

    model_name_or_path: str | None = option(
        "Folder or Hub name of an existing model to train further; give it or --config_name."
    )
    config_name: str | None = option(
        "Configuration of a new model: a JSON file such as configs/model/tiny.json, a folder or a Hub name."
    )
    config_overrides: dict[str, Any] | str | None = option(
        "Fields of the new model's configuration to change, as 'd_model=256,encoder_layers=12' or, in a recipe, as a "
        "mapping. Of an existing model only dropouts and label_smoothing can be changed."
    )
    tokenizer_name: str | None = option(
        "Folder or Hub name of the tokenizer, as hf-xformer tokenizer makes it. An existing model's own by default."
    )
    target_tokenizer_name: str | None = option(
        "Folder or Hub name of the target's tokenizer, if it has its own. By default the target_tokenizer/ inside the "
        "source's folder if there is one, else the source's tokenizer."
    )
    trust_remote_code: bool = option(
        "Run code that comes with the model or the tokenizers. Read it first: it can do anything that you can. By "
        "default it is refused.",
        False,
    )
    attn_implementation: str | None = option(
        "Attention: eager, sdpa, varlen (torch's FlashAttention: 16 bits on a GPU), flex_attention (needs a GPU) "
        "or flash_attention_2 (needs its package). By default varlen where it can train the model, eager for texts of "
        "at most 512 tokens in bfloat16 on a CPU, where it is faster, else sdpa."
    )
    card_facts: str | None = option(
        "YAML file with what the model card says beside the run's figures: language, licences, data, use, limits; see "
        "model_cards/g2p-quickstart.yaml. By default the card has marks where they belong."
    )
    hub_overwrite: bool = option(
        "With --push_to_hub, replace and delete files in --hub_model_id that were not pushed from --output_dir. By "
        "default a repository that has any is refused.",
        False,
    )
    ema_decay: float | None = option(
        "Decay of an exponential moving average of the weights, between 0 and 1, such as 0.999; the run evaluates "
        "with the average and ends with it. By default there is none."
    )
    r_drop: float | None = option(
        "Weight of R-Drop, such as 1 to 5: every pair goes through the model twice, with other dropouts, and the two "
        "predictions are to agree. By default each goes through once."
    )
    freeze: list[str] | None = option(
        "Parts of the model that are not trained, such as encoder, decoder.layers.0 or *.feed_forward: modules or "
        "weights, by name or pattern; embeddings is all tables of tokens and positions. By default all is trained."
    )
    lr_multipliers: dict[str, Any] | str | None = option(
        "Factors of the learning rate for parts of the model, named as in --freeze: 'encoder=0.1,embeddings=0.5' or, "
        "in a recipe, a mapping. A weight in several parts has their product."
    )
    lora_rank: int | None = option(
        "Rank of LoRA adapters, such as 8, to train in place of the weights of --model_name_or_path. By default all "
        "weights are trained."
    )
    lora_alpha: int = option("Scale of LoRA: what adapters add is multiplied by --lora_alpha / --lora_rank.", 16)
    lora_dropout: float = option("Dropout before LoRA adapters, from 0 to below 1.", 0.0)
    lora_target_modules: list[str] | None = option(
        "Names of the layers that get LoRA adapters, such as q_proj and k_proj, or all-linear. By default q_proj and "
        "v_proj, and for a stock model those that PEFT knows for its type."
    )
    peft_config: dict[str, Any] | str | None = option(
        "Adapters of another kind, or with more options: a mapping with PEFT's own names, such as {peft_type: IA3}. "
        "peft_type is LORA, ADALORA, IA3, PREFIX_TUNING, PROMPT_TUNING or P_TUNING. In place of --lora_rank."
    )

    @property
    def adapts(self) -> bool:
        """True if the run trains adapters."""
        return self.lora_rank is not None or self.peft_config is not None


@dataclass
class CorpusArguments:
    """A corpus of `datasets`."""

    name: str | None = option(
        "Its name in stages, messages, logs and the model card. By default that of its first file or its dataset."
    )
    weight: float | None = option(
        "How often its pairs are drawn, against those of the others. All corpora have one, or none."
    )
    prefix: str = option(
        "Text that is put before each of its sources, such as '<2de> ' or 'summarise: '. Texts that are decoded later "
        "have to begin with it too.",
        "",
    )
    train_file: list[str] | None = option("Its files, as for one corpus; give them or dataset_name.")
    dataset_name: str | None = option("Folder or Hub name of a dataset, in place of files.")
    dataset_config_name: str | None = option("Configuration of that dataset; its default one by default.")
    train_split: str | None = option("Split of the dataset. By default that of the recipe.")
    source_column: str | None = option("Field or column that holds the source. By default that of the recipe.")
    target_column: str | None = option("Field or column that holds the target. By default that of the recipe.")
    on_bad_row: str | None = option(
        "What to do with its bad rows. By default what the recipe says.", choices=list(POLICIES)
    )
    max_length_ratio: float | None = option("Its own limit of that name. By default that of the recipe.")
    streaming: bool | None = option(
        "Read this corpus while training. By default as the recipe says: a stream and corpora in memory go together."
    )
    objective: dict[str, Any] | str | None = option(
        "An objective that makes pairs of its texts, which have no targets. By default that of the recipe."
    )
    bpe_dropout: float | None = option("Its own option of that name. By default that of the recipe.")
    unigram_sampling: float | None = option("Its own option of that name. By default that of the recipe.")
    source_word_dropout: float | None = option("Its own option of that name. By default that of the recipe.")
    case_noise: float | None = option("Its own option of that name. By default that of the recipe.")


@dataclass
class ValidationSetArguments:
    """A set of `validation_sets`, where it is more than files."""

    validation_file: list[str] | None = option("Its files, as for one validation set.")
    prefix: str = option("Text that is put before each of its sources, as before those of a corpus.", "")
    source_column: str | None = option("Field or column that holds the source. By default that of the recipe.")
    target_column: str | None = option("Field or column that holds the target. By default that of the recipe.")


@dataclass
class StageArguments:
    """A stage of `stages`."""

    until_step: int | None = option("Its last step. The last stage has none: it is the rest of the run.")
    weights: dict[str, Any] | None = option(
        "Weight of each corpus by its name; a corpus that is not named is not drawn from."
    )


@dataclass
class DataArguments:
    """Which pairs to train and evaluate on, how long they may be, and how they share batches."""

    train_file: list[str] | None = option(
        "Training pairs: one or several JSONL, CSV, TSV or Parquet files, a folder of them, or two text files with a "
        "sentence a line, source first; give it, --dataset_name or --datasets."
    )
    datasets: list[dict[str, Any]] | str | None = option(
        "Several corpora to draw training pairs from, in place of --train_file: a list of mappings, with the options "
        "of a corpus, or its text in YAML. Needs --max_steps: a mixture has no epochs.",
    )
    temperature: float | None = option(
        "Draws from --datasets in proportion to the number of their pairs to the power of 1 / temperature, in place "
        "of weights: with 1 as often as they are large, with more the more evenly. By default 1, without weights."
    )
    stages: list[dict[str, Any]] | str | None = option(
        "Weights of --datasets that change on the way: a list of mappings, each with until_step and weights, or "
        "its text in YAML.",
    )
    validation_file: list[str] | None = option(
        "Validation pairs, in the formats of --train_file. By default there is no evaluation, unless --eval_strategy "
        "asks for it on a dataset's split."
    )
    validation_sets: dict[str, Any] | str | None = option(
        "Several validation sets by name, in place of --validation_file: 'news=news.jsonl,talks=talks.jsonl' or, in a "
        "recipe, a mapping of names to files, or to a mapping with validation_file, prefix, source_column and "
        "target_column. Each has its scores, such as eval_news_loss; eval_loss is their mean."
    )
    dataset_name: str | None = option("Folder or Hub name of a dataset for datasets.load_dataset, in place of files.")
    dataset_config_name: str | None = option("Configuration of that dataset; its default one by default.")
    train_split: str = option("Split of the dataset to train on.", "train")
    validation_split: str = option("Split of the dataset to evaluate on.", "validation")
    source_column: str = option(
        "Field or column that holds the source, or a template of several, such as <2{target_lang}> {source}.", "source"
    )
    target_column: str = option(
        "Field or column that holds the target: a text, or in JSONL and Parquet a list of equally good texts.",
        "target",
    )
    on_bad_row: str = option(
        "What to do with rows that are empty or no pair of texts: an error, which counts all and names the first, or "
        "skip, which leaves them out and counts them by reason.",
        "error",
        choices=list(POLICIES),
    )
    max_length_ratio: float | None = option(
        "Most characters of one side of a training pair for each of the other side, of which fewer than "
        f"{SHORTEST} count as {SHORTEST}; a pair beyond it is a bad row. By default any lengths are good."
    )
    streaming: bool = option(
        "Read training pairs while training instead of tokenising them all first; needs --max_steps.", False
    )
    max_source_length: int = option("Longest source, in tokens, the end token included.", 256)
    max_target_length: int = option("Longest target, in tokens, the end token included.", 256)
    overlong: str = option(
        "What to do with training pairs that are longer: truncate or drop them. Either is counted and said.",
        "truncate",
        choices=["truncate", "drop"],
    )
    objective: dict[str, Any] | str | None = option(
        "Learn from texts without targets, of which pairs are made while training, others in every pass: "
        "span_corruption, denoising, prefix_lm, copy, ul2, or a mapping with a name and options, such as "
        "{name: span_corruption, noise_density: 0.15, mean_span: 3}. Needs --max_steps. By default the data are pairs."
    )
    bpe_dropout: float = option(
        "Probability of each merge of a byte-pair encoding to be left out whenever a text is read, such as 0.1, so "
        "that words come in other subwords each time. Needs --max_steps.",
        0.0,
    )
    unigram_sampling: float | None = option(
        "Draw how words are split by a unigram tokenizer whenever a text is read, by the pieces' likelihoods to this "
        "power, such as 0.2. Needs --max_steps. By default each word is split in its likeliest way."
    )
    source_word_dropout: float = option(
        "Probability of each word of a source, between white space, to be left out whenever it is read. Needs "
        "--max_steps.",
        0.0,
    )
    case_noise: float = option(
        "Probability of a source to come in upper case, in lower case or with each word capitalised whenever it is "
        "read. Needs --max_steps.",
        0.0,
    )
    special_tokens_in_text: str | None = option(
        "What a special token such as </s> is where a text spells it out: literal (text) or read (that token, which "
        "is left out of decoded text). It is kept with the tokenizers, for decoding. By default as they say, else "
        "literal. Other added tokens, such as <2de>, are always read.",
        choices=[LITERAL, READ],
    )
    group_by_length: bool = option(
        "Make batches of pairs of like length, in random order. Not with a --train_sampling_strategy of your own.",
        True,
    )
    max_tokens: int | None = option(
        "Most tokens of a process's batch on each side, padding included, in place of --per_device_train_batch_size "
        "pairs."
    )
    packing: bool = option(
        "Lay the pairs of a batch behind one another in one row, without padding between them; a batch has "
        "--max_tokens on each side, or else --per_device_train_batch_size pairs.",
        False,
    )
    eval_max_tokens: int | None = option(
        "Most tokens of a process's batch in evaluation on each side, padding included, in place of "
        "--per_device_eval_batch_size rows. By default that of --max_tokens, if there is one and "
        "--per_device_eval_batch_size is left at its default."
    )
    max_train_samples: int | None = option(
        "Number of rows to train on, the first ones; in each of several corpora. All by default."
    )
    max_eval_samples: int | None = option("Number of rows to evaluate on, the first ones; all by default.")
    preprocessing_num_workers: int | None = option("Number of processes that tokenise; one by default.")
    change_recipe: bool = option(
        "Go on from a checkpoint although options that decide the weights have changed: the new values count from "
        "there on, and run.json and the model card say which steps had which. By default such a start is refused.",
        False,
    )
    metrics: list[str] | None = option(
        "Metrics of generated text to compute in evaluation: sacrebleu, chrf, chrf++, ter, exact_match, wer, cer, "
        "per, wrong_words. By default only the loss is computed, and nothing is generated."
    )
    sacrebleu_tokenize: str | None = option(
        "How sacrebleu splits words, such as 13a, zh, ja-mecab, ko-mecab, flores200 or char. By default 13a, or where "
        "the references are Chinese, Japanese, Korean or without spaces between words, what their script wants."
    )
    unicode_form: str = option(
        "Unicode form that metrics compare texts in; none compares them as they are.",
        NFC,
        choices=list(UNICODE_FORMS),
    )
    early_stopping_patience: int | None = option(
        "End the run after so many evaluations one after another whose --metric_for_best_model is not better than "
        "before. By default it runs to its end."
    )
    early_stopping_threshold: float = option(
        "By how much an evaluation has to be better than the last one that counted, to count as better.", 0.0
    )

    @property
    def endless(self) -> str | None:
        """The option for which pairs are made while training, pass after pass; None if they are made before."""
        if self.datasets is not None:
            return "--datasets"
        drawn = self.drawn
        return "--streaming" if self.streaming else f"--{drawn[0]}" if drawn else None

    @property
    def columns(self) -> tuple[str, str | None]:
        """Names of the columns that are read: an objective's data have no target."""
        return self.source_column, self.target_column if self.objective is None else None

    @property
    def unwanted(self) -> Unwanted | None:
        """The column that makes a row bad where an objective makes the targets."""
        return Unwanted(self.target_column, "--objective") if self.objective is not None else None

    @property
    def drawn(self) -> list[str]:
        """Names of the options for which chance decides what a row is, whenever it is read."""
        # A power of 0 is one of `unigram_sampling`, by which all ways to split a word are alike.
        return [name for name in CHANCE if getattr(self, name) != type(self).__dataclass_fields__[name].default]

    @property
    def plans_batches(self) -> bool:
        """True if whole batches are made before an epoch: packed ones, or ones of so many tokens."""
        return self.packing or self.max_tokens is not None

    def evaluates(self, training_args: TrainingArguments) -> bool:
        """Returns True if the run has a validation set: it is evaluated at the end, whatever `eval_strategy`."""
        return bool(self.validation_files) or training_args.eval_strategy != "no"

    @property
    def validation_files(self) -> dict[str, list[str]]:
        """Files of the validation sets by name, of a single one by an empty name; empty if there are none."""
        if isinstance(self.validation_sets, dict):
            return {name: each["validation_file"] for name, each in self.validation_sets.items()}
        return {} if self.validation_file is None else {"": self.validation_file}
