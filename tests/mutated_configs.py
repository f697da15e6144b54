# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Random faults in config.json and generation_config.json, as strategies of hypothesis."""

import json
from collections.abc import Callable

from hypothesis import strategies as st
from mutations import GENERATION, KINDS, original
from small_models import SIZES
from transformers import GenerationConfig


# JSON that no field can have, or that only few can.
NO_VALUE = (
    *("", "x", "1", "none", [], ["x"], [[1]], {}, {"a": 1}, {"rope_theta": 1}, {"__float__": "NaN"}),
    *(float("nan"), float("inf"), -float("inf"), -1, -2.5, -(10**30), 10**30, 10**400, 1e300, 2**63, 10**12),
)
SIZE = (0, 3.5, True, None, 10**9, 2**31 - 1, 10**6 + 1)
NUMBER = (0, True, 1e10, 2**31)
# Fields for which every size makes a model, as far as the weights tell; some for one kind of model alone.
ANY_SIZE = {"block_size", "num_global_tokens", "relative_attention_max_distance", "max_position_embeddings"}
SIZES_OF_WEIGHTS = (
    *("vocab_size", "encoder_vocab_size", "d_model", "encoder_layers", "decoder_layers", "encoder_attention_heads"),
    *("decoder_attention_heads", "num_key_value_heads", "head_dim", "encoder_ffn_dim", "decoder_ffn_dim"),
    "relative_attention_num_buckets",
)
BOOLEANS_THAT_WEIGHTS_TELL = (
    *("use_bias", "gated_ffn", "qk_norm", "layernorm_embedding", "use_final_logits_bias", "tie_word_embeddings"),
    *("is_encoder_decoder", "relative_attention_per_layer"),
)
# Beside the fields: what the library or a person may write into the file.
BESIDE: dict[str, tuple] = {
    "unknown_field": (1, "x", {}),
    "hidden_size": (48, "x", 0),
    "num_hidden_layers": (7, 10**9, "x"),
    "layer_types": (["full_attention"], 5),
    "sliding_window": (10**6, "x"),
    "rope_scaling": (5, {"rope_type": "linear", "factor": 2.0}, []),
    "rope_theta": (0, "x", float("nan")),
    "partial_rotary_factor": (0.5, "x"),
    "dtype": ("float16", "bfloat16", "float64", "garbage", "nn", "int64", 5, [], "load", "float8_e4m3fn"),
    "torch_dtype": ("garbage", 5, [], "int8"),
    "quantization_config": (5, "x", {}, {"quant_method": "none such"}, {"load_in_4bit": True}, []),
    "attn_implementation": ("garbage", "eager", "flash_attention_2", 5, {"": "x"}, [], "block"),
    "experts_implementation": (5, "x"),
    "architectures": (5, [5], ["T5ForConditionalGeneration"], [], "x", None, ["XformerModel"], {"a": 1}),
    "auto_map": (5, [], "x", {"AutoConfig": 5}, {"AutoModel": "evil--code.Model"}, {"AutoConfig": None}),
    "transformers_version": (5, "garbage", "0.0.1", "99.0.0", [], None),
    "format_version": (0, 2, True, "1", 1.5, None, -1, 10**9),
    "id2label": ({"a": "b"}, 5, {"1": 5}, [], {"-1": "x"}),
    "label2id": (5, {"a": "b"}, []),
    "num_labels": (10**9, -1, "x", 3, 2.5),
    "problem_type": ("x", 5),
    "per_layer_config": (5, {"0": {"d_model": 3}}, "x"),
    "return_dict": (False, "x", 5),
    "output_hidden_states": (True, "x", 5),
    "output_attentions": (True, "x", 5),
    "chunk_size_feed_forward": (-5, "x", 3),
    "is_encoder_decoder": (False, "x", None, 1),
    "model_type": ("xfromer", 5, None, "", [], "t5"),
    "configuration_files": (5, ["config.9.0.0.json"], "x"),
    "name_or_path": (5, "/etc/passwd"),
    "_name_or_path": (5, "../x"),
    "_commit_hash": (5,),
    "attribute_map": ({}, {"d_model": "x"}),
    "text_config": ({}, {"vocab_size": 3}, 5),
    "decoder": ({}, 5),
    "validate": (5, "x"),
    "to_dict": (5,),
    "heads_of": ("x",),
    "max_length": (3, "x"),
    "num_beams": (0, "x"),
    "use_cache": (0, "x", None, False),
}
ROPE_EDITS: dict[str, tuple] = {
    "rope_theta": (0, -1, 0.0, float("nan"), float("inf"), -float("inf"), "x", None, True, [], {"a": 1}),
    "rope_type": ("", "spiral", 5, None, [], "dynamic ", "longrope", "llama3", "default_"),
    "type": ("linear", "dynamic", 5),
    "factor": (0, -1, 0.5, float("nan"), "x", None, float("inf"), True),
    "original_max_position_embeddings": (0, -1, 1, "x", 2.5, float("nan")),
    "attention_factor": (0, -1.0, "x", float("nan")),
    "beta_fast": (0, -1.0, "x", float("nan"), 1e-9),
    "truncate": ("x", 5, None),
    "partial_rotary_factor": (0.5, 0, "x", float("nan")),
    "full_attention": ({}, {"rope_theta": 5.0}, 5),
    "unknown": (1, "x"),
}


def wrong_values(name: str, value: object, kind: str) -> tuple:
    """Values that a field must not have, or that leave the model as it is."""
    if name in SIZES_OF_WEIGHTS:
        return (*NO_VALUE, *SIZE)
    if name in ANY_SIZE:
        huge = (10**9, 10**6) if name == "max_position_embeddings" and "relative" not in kind else ()
        return (*NO_VALUE, 3.5, True, None, 2**31, *huge, *(() if name == "num_global_tokens" else (0,)))
    if name in ("norm_eps", "initializer_range"):
        return (*NO_VALUE, *NUMBER, None)
    if name == "attention_multiplier":
        return (*NO_VALUE, *NUMBER)
    if isinstance(value, bool):
        return (*NO_VALUE, 0, 1, 2, None, *((not value,) if name in BOOLEANS_THAT_WEIGHTS_TELL else ()))
    if name.endswith("token_id"):
        return (*NO_VALUE, SIZES["vocab_size"], 10**9, True, 3.5, [], [True], [10**9], [-1])
    if isinstance(value, float):  # probabilities: training's alone
        return (*NO_VALUE, 0.5, 0, 1, 1.5, True, None, 10**9)
    if name.endswith("_layer_types"):
        longer = [*value, value[0]]
        return (*NO_VALUE, None, longer, value[:-1], ["full"] * len(value), [5] * len(value), [None] * len(value))
    if isinstance(value, str):
        return (*NO_VALUE, None, 5, True, value.upper(), f"{value} ", value[:-1], f"{value}\n")
    return (*NO_VALUE, None)


@st.composite
def changed_configs(draw) -> tuple[str, str, bytes]:
    """Draws a kind of model, the change in words, and the content of its config.json."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    content = original(kind).read("config.json")
    said = []
    for _ in range(draw(st.sampled_from((0, 1, 1, 1, 1, 2)))):
        how = draw(st.sampled_from(("value", "value", "value", "delete", "beside", "beside", "rope")))
        if how == "beside":
            name = draw(st.sampled_from(sorted(BESIDE)))
            content[name] = draw(st.sampled_from(BESIDE[name]))
        elif how == "rope":
            name = draw(st.sampled_from(sorted(ROPE_EDITS)))
            rope = content.get("rope_parameters")
            if isinstance(rope, dict):
                content["rope_parameters"] = {**rope, name: draw(st.sampled_from(ROPE_EDITS[name]))}
                if draw(st.sampled_from((False, False, False, True))):
                    content["rope_parameters"].pop(name)
        else:
            fields = sorted(set(original(kind).read("config.json")) - set(BESIDE))
            name = draw(st.sampled_from(fields))
            before = original(kind).read("config.json")[name]
            content[name] = None
            if how == "value":
                content[name] = draw(st.sampled_from(wrong_values(name, before, kind)))
            else:
                del content[name]
        said.append(f"{how} {name} {content.get(name, '-')!r:.60}")
    indent = draw(st.sampled_from((None, 2, 7)))
    names = draw(st.permutations(sorted(content))) if draw(st.booleans()) else sorted(content)
    text = json.dumps({name: content[name] for name in names}, indent=indent)
    if not said or draw(st.sampled_from((False,) * 6 + (True,))):
        how, data = draw(changed_text(text))
        return kind, f"{kind}: {'; '.join([*said, how])}", data
    return kind, f"{kind}: {'; '.join(said)}", text.encode()


@st.composite
def changed_text(draw, text: str) -> tuple[str, bytes]:
    """Draws what can happen to a JSON text that holds an object, whatever is in it."""
    first = text.index("{") + 1
    name = draw(st.sampled_from(("d_model", "max_length", "weight_map", "zzz")))
    edits: dict[str, Callable[[], bytes]] = {
        "cut off": lambda: text.encode()[: draw(st.integers(0, len(text) - 1))],
        "byte order mark": lambda: b"\xef\xbb\xbf" + text.encode(),
        "utf-16": lambda: text.encode("utf-16"),
        "latin-1": lambda: (text[:first] + '"name": "\u00e9", ' + text[first:]).encode("latin-1"),
        "key twice": lambda: (text[:first] + f'"{name}": 7, "{name}": 7, ' + text[first:]).encode(),
        "deep": lambda: (text[:first] + '"zzz": ' + "[" * 100_000 + "]" * 100_000 + ", " + text[first:]).encode(),
        "digits": lambda: (text[:first] + '"zzz": ' + "9" * 5000 + ", " + text[first:]).encode(),
        "infinite": lambda: (text[:first] + '"zzz": 1e999, ' + text[first:]).encode(),
        "constant": lambda: (text[:first] + '"zzz": -Infinity, ' + text[first:]).encode(),
        "list": lambda: f"[{text}]".encode(),
        "text": lambda: json.dumps(text).encode(),
        "null": lambda: b"null",
        "comment": lambda: b"// x\n" + text.encode(),
        "behind it": lambda: text.encode() + b" x",
        "spaces": lambda: text.replace(", ", " ,\n\t ").encode() + b"\n\n",
        "zeros": lambda: text.encode() + b"\0" * 9,
        "bit": lambda: flipped(text.encode(), draw(st.integers(0, first)), draw(st.integers(0, 7))),
    }
    how = draw(st.sampled_from(sorted(edits)))
    return how, edits[how]()


def flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]


# Options of `generate()` of which any positive number makes another text, rightly.
ANY_NUMBER = {"repetition_penalty", "encoder_repetition_penalty", "length_penalty", "guidance_scale", "max_time"}
NOT_FINITE = ("x", [], {}, {"a": 1}, float("nan"), float("inf"), -float("inf"), {"__float__": "NaN"}, 10**400, True)
COUNTS = {
    *("max_length", "max_new_tokens", "min_length", "min_new_tokens", "num_beams", "num_return_sequences", "top_k"),
    *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size"),
}


def wrong_options(name: str) -> tuple:
    """Values that an option must not have, or that leave the text as it is."""
    if name in ANY_NUMBER:
        return NOT_FINITE
    if name in COUNTS:
        zero = (0,) if name in ("num_beams", "max_length") else ()
        return (*NOT_FINITE, -1, 2.5, -(10**9), 10**9, 10**12, "5", *zero)
    if name in GENERATION:
        return (*NOT_FINITE[:-1], -1, 53, 10**9, 2.5, "never ")
    if name in ("epsilon_cutoff", "eta_cutoff", "temperature", "top_p", "typical_p", "min_p", "top_h"):
        return (*NOT_FINITE, -1, 0.5, 2.5, 10**9)  # for sampling
    return (*NOT_FINITE[:-1], -1, 2.5, 10**9, "x", [[]], [[10**9]], [1, "x"], {"greenlist_ratio": 5})


@st.composite
def changed_generation_configs(draw) -> tuple[str, bytes]:
    """Draws a change in words and the content of a generation_config.json."""
    content = original("rope-pre").read("generation_config.json")
    names = sorted({*vars(GenerationConfig()), "unknown", "custom_generate", "logits_processor", "streamer"})
    said = []
    for _ in range(draw(st.sampled_from((0, 1, 1, 1, 1, 1, 2)))):
        name = draw(st.sampled_from((*names, *GENERATION, *sorted(COUNTS))))
        content[name] = draw(st.sampled_from(wrong_options(name)))
        said.append(f"{name} {content[name]!r:.60}")
    text = json.dumps(content, indent=draw(st.sampled_from((None, 2))))
    if not said or draw(st.sampled_from((False,) * 6 + (True,))):
        how, data = draw(changed_text(text))
        return "; ".join([*said, how]), data
    return "; ".join(said), text.encode()
