# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The pipeline `pipeline("seq2seq", model=...)`: text in, text out, without calling `generate()`."""

from pathlib import Path

from transformers import Pipeline, PreTrainedTokenizerBase


class Seq2SeqPipeline(Pipeline):
    """
    Decodes texts with any sequence-to-sequence model, as `hf-xformer generate` does.

    A text gives a list of its hypotheses, best first: `[{"generated_text": ...}]`; a list of texts gives a list of
    such lists. Arguments of a call, or of `pipeline`, are those of `generate()` (`num_beams`, `max_new_tokens`, ...),
    and

        num_return_sequences: Hypotheses a text; beams are sorted by their probability a token.
        return_scores: Whether to add each one's `score`, the natural logarithm of its probability, end token included.
        batch_size: Texts at a time.

    An empty text gives an empty hypothesis. A checkpoint's `target_tokenizer` is loaded too, on the Hub from the main
    branch; for another revision, or where an access token is needed, give `pipeline` a `target_tokenizer`.

    Raises:
        ValueError: An input is not a text, or an argument is one that `generate()` does not know or refuses.
    """

    _load_tokenizer = True
    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False

    def __init__(self, *args, target_tokenizer: PreTrainedTokenizerBase | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        # Imported here, because they would add seconds to the import of the package.
        from ..checkpoints.folder_checks import check_generation, check_json
        from ..checkpoints.loading import load_target_tokenizer
        from ..checkpoints.vocabulary import check_sides
        from ..files import GENERATION_CONFIG

        if self.model.name_or_path:  # not made in memory
            path = Path(self.model.name_or_path, GENERATION_CONFIG)  # which the library passes over if it is broken
            check_generation(check_json(path), self.model.config, str(path))

        if target_tokenizer is None:
            target_tokenizer = load_target_tokenizer(self.tokenizer.name_or_path)
        self.target_tokenizer = target_tokenizer or self.tokenizer
        check_sides(self.model.config, self.tokenizer, self.target_tokenizer)

    def _sanitize_parameters(self, return_scores: bool | None = None, **generate_options):
        scores = {} if return_scores is None else {"return_scores": return_scores}
        return {}, {**generate_options, **scores}, {}

    def preprocess(self, input_: str) -> dict[str, str]:
        if not isinstance(input_, str):
            raise ValueError(f"expected a text or a list of texts, got {input_!r:.80}")
        return {"text": input_}

    def _forward(self, input_tensors: dict, return_scores: bool = False, **options) -> dict[str, list]:
        from ..checkpoints.loading import position_limit
        from .decoder import Decoder

        alone = isinstance(input_tensors["text"], str)  # not collated with others
        texts = [input_tensors["text"]] if alone else input_tensors["text"]
        sides = self.tokenizer, self.target_tokenizer
        limit = position_limit(self.model.config, "encoder")
        decoder = Decoder(self.model, *sides, len(texts), limit, scores=return_scores, **options)
        decoded = list(decoder.decode(texts))
        return {"hypotheses": decoded[0] if alone else decoded}

    def postprocess(self, model_outputs: dict[str, list]) -> list[dict]:
        return [
            {"generated_text": each.text} | ({} if each.score is None else {"score": each.score})
            for each in model_outputs["hypotheses"]
        ]
