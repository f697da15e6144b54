# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Small tokenizers in the shapes of the stock families, of characters, and some that are unfit in one way each."""

from collections.abc import Callable

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast, PythonBackend


SPECIALS = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"}
LETTERS = [*" abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789<>/[]{}_.,:;!?-'\"éèäöüß한국어日本語"]
LANGUAGES = ["en_XX", "de_DE"]


def letters(single: str = "$A </s>", tags: tuple[str, ...] = (), **options) -> PreTrainedTokenizerFast:
    """Returns a tokenizer of characters with a frame; `tags` are special tokens beside the four."""
    entries = [*SPECIALS.values(), *tags, *LETTERS]
    tokenizer = Tokenizer(models.BPE({entry: i for i, entry in enumerate(entries)}, merges=[], unk_token="<unk>"))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in (*SPECIALS.values(), *tags)])
    frame = [(each, entries.index(each)) for each in single.split() if not each.startswith("$")]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=frame)
    named = {**SPECIALS, "additional_special_tokens": list(tags), "clean_up_tokenization_spaces": False}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{**named, **options})


def unigram() -> PreTrainedTokenizerFast:
    """Returns a tokenizer in the shape of T5's: its model itself finds special tokens in a text."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    tokenizer = Tokenizer(models.Unigram([*pieces, *((each, -4.0) for each in LETTERS[1:])], unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(list(SPECIALS.values()))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIALS)


def wordpiece(**options) -> PreTrainedTokenizerFast:
    """Returns a tokenizer in the shape of BERT's: lower case, without accents, [CLS] ... [SEP]."""
    named = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    entries = [*named, *LETTERS[1:], *(f"##{letter}" for letter in LETTERS[1:])]
    tokenizer = Tokenizer(models.WordPiece({entry: i for i, entry in enumerate(entries)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(named)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="[MASK]", **names, **options)


class Slow(PythonBackend):
    """A tokenizer of characters in plain Python, as people write their own."""

    vocab_files_names: dict = {}
    model_input_names = ["input_ids", "attention_mask"]

    def __init__(self, doubled: bool = False, **options):
        self.entries = {entry: i for i, entry in enumerate([*SPECIALS.values(), *LETTERS])}
        if doubled:
            self.entries["b"] = self.entries["a"]
        self.names = {i: entry for entry, i in self.entries.items()}
        super().__init__(**{**SPECIALS, **options})

    @property
    def vocab_size(self) -> int:
        return max(self.entries.values()) + 1

    def get_vocab(self) -> dict[str, int]:
        return {**self.entries, **self.added_tokens_encoder}

    def _tokenize(self, text, **kwargs) -> list[str]:
        return list(text)

    def _convert_token_to_id(self, token: str) -> int:
        return self.entries.get(token, 3)

    def _convert_id_to_token(self, index: int) -> str:
        return self.names.get(index, "<unk>")

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return "".join(tokens)

    def build_inputs_with_special_tokens(self, token_ids_0, token_ids_1=None) -> list[int]:
        return [*token_ids_0, 1]


class Uncut(Slow):
    """A tokenizer that does not hear of truncation."""

    def __call__(self, text=None, text_target=None, **options):
        options = {name: value for name, value in options.items() if name not in ("truncation", "max_length")}
        return super().__call__(text=text, text_target=text_target, **options)


class Marking(Slow):
    """A tokenizer that ends texts whatever it is told."""

    def _tokenize(self, text, **kwargs) -> list[str]:
        return [*text, "</s>"]

    def build_inputs_with_special_tokens(self, token_ids_0, token_ids_1=None) -> list[int]:
        return list(token_ids_0)


SHAPES: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    "plain": letters,
    "mBART": lambda: letters("$A </s> en_XX", (*LANGUAGES,)),
    "NLLB": lambda: letters("en_XX $A </s>", (*LANGUAGES,)),
    "BART": lambda: letters("<s> $A </s>", mask_token="[M]"),
    "T5": unigram,
    "BERT": lambda: wordpiece(eos_token="[SEP]"),
    "ByT5": ByT5Tokenizer,
    "left truncation": lambda: letters("<s> $A </s>", truncation_side="left"),
    "slow": Slow,
    "slow, left truncation": lambda: Slow(truncation_side="left"),
}
