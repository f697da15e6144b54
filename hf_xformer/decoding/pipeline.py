# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The pipeline `pipeline("seq2seq", model=...)`: text in, text out, without calling `generate()`."""

from pathlib import Path
from typing import TYPE_CHECKING

from transformers import Pipeline, PreTrainedTokenizerBase


if TYPE_CHECKING:  # it would add seconds to the import of the package
    from .decoder import Decoder


class Call:
    """State that the batches of one call share: the decoder, and how many texts it has decoded."""

    def __init__(self) -> None:
        self.decoder: Decoder | None = None
        self.decoded = 0


class Seq2SeqPipeline(Pipeline):
    """
    Decodes texts with any sequence-to-sequence model, as `hf-xformer generate` does.

    A text gives a list of its hypotheses: `[{"generated_text": ...}]`; a list of texts gives a list of
    such lists. Arguments of a call, or of `pipeline`, are those of `generate()` (`num_beams`, `max_new_tokens`, ...),
    and

        num_return_sequences: Hypotheses a text: beams by their probability a token, best first, or samples as drawn.
        return_scores: Whether to add each one's `score`, the natural logarithm of its probability, end token included.
        mbr: Metric that sorts a text's hypotheses by their `utility`, as in `Decoder`.
        batch_size: Texts at a time.
        overlong: "keep" (the default), "truncate" or "error", for texts longer than the model was trained on.
        max_source_length: Most tokens of a text that is not too long, in place of those of the training.
        stop_strings, assistant_model: As `generate()` has them; the assistant may be the name of a checkpoint.

    Model and tokenizers may be names or objects. An empty text gives an empty hypothesis. A checkpoint's
    `target_tokenizer` is loaded too, on the Hub from the main branch; for another revision, or where an access token
    is needed, give `pipeline` a `target_tokenizer`.

    Raises:
        ValueError: An input is not a text, or an argument is one that `generate()` does not know or refuses.
    """

    _load_tokenizer = True
    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False

    def __init__(self, *args, target_tokenizer: PreTrainedTokenizerBase | None = None, **kwargs):
        assistant = kwargs.pop("assistant_model", None)
        super().__init__(*args, **kwargs)
        # Imported here, because they would add seconds to the import of the package.
        from ..checkpoints.folder_checks import check_generation, check_json
        from ..checkpoints.number_formats import describe_slowdown, is_slow
        from ..checkpoints.vocabulary import check_vocabulary
        from ..files import GENERATION_CONFIG
        from .decoder import logger, quicken

        if self.model.name_or_path:  # not made in memory
            path = Path(self.model.name_or_path, GENERATION_CONFIG)  # which the library passes over if it is broken
            check_generation(check_json(path), self.model.config, str(path))

        self.target_tokenizer = target_tokenizer or self.find_target_tokenizer()
        check_vocabulary(self.model.config, self.tokenizer, self.target_tokenizer)
        if is_slow(self.model.dtype, self.model.device):  # whether that was asked for, nothing tells
            logger.warning(f'{describe_slowdown(self.model.dtype)}: pipeline(..., dtype="float32") is faster')
        quicken(self.model)
        self.assistant = self.with_assistant({} if assistant is None else {"assistant_model": assistant})

    def find_target_tokenizer(self) -> PreTrainedTokenizerBase:
        """Returns the target's tokenizer, from beside the source's if that was loaded."""
        from ..checkpoints.loading import load_target_tokenizer
        from ..errors import ArgumentError

        name = self.tokenizer.name_or_path
        if not name:
            return self.tokenizer
        try:
            return load_target_tokenizer(name) or self.tokenizer
        except ArgumentError as error:
            raise ArgumentError(f"{error}; give pipeline a target_tokenizer") from error

    def __call__(self, inputs, *args, **kwargs):
        """Decodes a text, or a list of them, which may be empty."""
        return [] if isinstance(inputs, list) and not inputs else super().__call__(inputs, *args, **kwargs)

    def with_assistant(self, options: dict) -> dict:
        """Returns options of a call with the assistant's model in place of its name."""
        if not isinstance(name := options.get("assistant_model"), str):
            return options
        from .options import load_assistant

        return options | {"assistant_model": load_assistant(name, self.model, self.tokenizer, self.target_tokenizer)}

    def _sanitize_parameters(self, return_scores: bool | None = None, **generate_options):
        scores = {} if return_scores is None else {"return_scores": return_scores}
        return {}, {**self.with_assistant(generate_options), **scores, "call": Call()}, {}

    def preprocess(self, input_: str) -> dict[str, str]:
        if not isinstance(input_, str):
            raise ValueError(f"expected a text or a list of texts, got {input_!r:.80}")
        return {"text": input_}

    def _forward(self, input_tensors: dict, call: "Call", return_scores: bool = False, **options) -> dict[str, list]:
        from .decoder import Decoder

        alone = isinstance(input_tensors["text"], str)  # not collated with others
        texts = [input_tensors["text"]] if alone else input_tensors["text"]
        sides = self.tokenizer, self.target_tokenizer
        if call.decoder is None:  # the first batch, which is the largest
            options = self.assistant | options
            call.decoder = Decoder(self.model, *sides, batch_size=len(texts), scores=return_scores, **options)
        decoded = list(call.decoder.decode(texts, kind="text", first=call.decoded + 1))
        call.decoded += len(texts)
        return {"hypotheses": decoded[0] if alone else decoded}

    def postprocess(self, model_outputs: dict[str, list]) -> list[dict]:
        return [
            {"generated_text": each.text}
            | {name: value for name in ("score", "utility") if (value := getattr(each, name)) is not None}
            for each in model_outputs["hypotheses"]
        ]
