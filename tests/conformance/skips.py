# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Every test here that may skip, and why; any other skip is a failure."""

from fnmatch import fnmatchcase

import torch


# Patterns of test names, `class.test` where only one class skips.
# A test of these runs wherever the machine has what it needs.
NEEDS = {
    "needs an accelerator": (
        "test_can_load_with_device_context_manager",
        "test_can_load_with_global_device_set",
        "test_cpu_offload",
        "test_disk_offload_*",
        "test_flex_attention_with_grads",
        "test_sdpa_can_compile_dynamic",
        "test_sdpa_can_dispatch_on_flash",
        "test_torch_compile_for_training",
    ),
    "needs several accelerators": ("test_model_parallelism",),
    "needs the FlashAttention package": ("test_flash_attn_*",),
    "needs the kernels package": ("test_kernels_can_load_without_crashing",),
    "needs deepspeed and an accelerator": ("test_resize_*_with_deepspeed*",),
    "needs torchao": ("test_tp_generation_quantized",),
}
if torch.accelerator.is_available():
    NEEDS |= {
        "needs a machine without an accelerator": ("test_tp_forward_*", "test_tp_backward", "test_tp_generation"),
        "needs an accelerator a process": ("test_fsdp2_*", "test_hsdp_*"),
    }

# A test of these never runs: what it checks does not exist in this model.
NEVER = {
    "the config has no sub-configs: one config serves both stacks": (
        "test_attn_implementation_composite_models",
        "test_can_set_attention_dynamically_composite_model",
        "test_internal_model_config_and_subconfig_are_same",
        "test_sdpa_can_dispatch_composite_models",
    ),
    "for decoder-only models, which shift the labels themselves": ("test_causal_lm_loss_honors_shift_labels",),
    "for models with sparse experts": (
        "test_eager_matches_batched_and_grouped_inference_*",
        "test_fsdp2_expert_parallel_*",
        "test_hsdp_grad_accumulation_vs_single_device_2_expert_parallel",
        "test_moe_parallel_plans_shard_experts",
        "test_moe_models_record_router_logits",
        "test_output_router_logits_from_config",
    ),
    "no module is kept in float32 when the model is loaded in half precision": ("test_keep_in_fp32_modules*",),
    "checkpoints are stored as they are loaded, without a conversion mapping": (
        "test_can_load_from_already_mapped_keys",
        "test_reverse_loading_mapping",
    ),
    "for outputs with one stack's `hidden_states`; test_own_attention.py asks for single layers of each stack": (
        "test_can_capture_specific_layers_hidden_states",
    ),
    "for rotary modules of the signature `(config)`; test_own_attention.py checks the frequencies": (
        "test_model_rope_scaling_frequencies",
    ),
    "only rotary positions scale": (
        "VanillaXformerTest.test_model_rope_scaling_from_config_*",
        "RelativeXformerTest.test_model_rope_scaling_from_config_*",
    ),
    "FlashAttention cannot add relative positions to the scores": ("RelativeXformerTest.test_flash_attn_*",),
    "rotary positions turn every feature of a head": ("test_model_rope_with_partial_rotation",),
    "for images": ("test_vision_axial_rope",),
    "the position table has a fixed length; longer inputs are refused": ("test_resize_position_vector_embeddings",),
    "the config has no `use_sliding_window`: its layer types say which layers have one; test_blocks_xformer.py checks "
    "their masks": ("test_sliding_window_mask",),
    "block layers have weights within blocks and not of whole rows; test_blocks_xformer.py asks for their shape": (
        "BlocksXformerTest.test_attention_outputs",
    ),
    "weights within blocks are put together for the output, where no gradient flows": (
        "BlocksXformerTest.test_retain_grad_hidden_states_attentions",
    ),
    "its cross-attention cache has the decoder's windows, which is refused": (
        "BlocksXformerTest.test_bc_cache_name_forward",
    ),
}


def names_of(test_class: type | None, test: str) -> tuple[str, ...]:
    """The names by which a pattern can speak of a test."""
    return (test,) if test_class is None else (test, f"{test_class.__name__}.{test}")


def explain(names: tuple[str, ...], reasons: dict[str, tuple[str, ...]]) -> str | None:
    """The reason under which a test of these names is listed in `reasons`; None if it is not."""
    for reason, patterns in reasons.items():
        if any(fnmatchcase(name, pattern) for name in names for pattern in patterns):
            return reason
    return None
