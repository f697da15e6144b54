# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Writes an Xformer's encoder and decoder as ONNX graphs, with the values that the modules compute.

Shapes: B batch, S source, T target tokens of a call, P tokens before them, D d_model, H query heads, G key and value
heads, K head width, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from ..models import XformerConfig
from .onnx_nodes import ACTIVATIONS, Graph


# As transformers' own exporter and those who read its graphs call them.
PAST, PRESENT = "past_key_values", "present"
SIDES = ("decoder", "encoder")  # whose keys and values: of the target, of the source
PARTS = ("key", "value")
# A score of what is not attended to; a row of which all is masked stays one of numbers.
MASKED = float(torch.finfo(torch.float32).min)


class StackGraph:
    """
    The common parts of both graphs.

    Args:
        graph: Is added to.
        model: In float32 on the CPU.
        stack: "encoder" or "decoder".
    """

    def __init__(self, graph: Graph, model: PreTrainedModel, stack: str):
        self.graph, self.stack = graph, stack
        self.model: Any = model
        self.config: Any = model.config
        self.module = getattr(self.model.model, stack)
        self.heads, self.head_dim = self.config.heads_of(stack)
        self.kv_heads = self.config.num_key_value_heads or self.heads

    def embed(self, ids: str, positions: str) -> str:
        """Token ids (B, S) at positions, (B or 1, S), to features (B, S, D)."""
        graph, module = self.graph, self.module
        # One name for what a tied output layer shares.
        is_tied = self.stack == "decoder" and self.model.lm_head.weight is module.embed_tokens.weight
        x = graph.embedding(ids, "lm_head" if is_tied else "embed_tokens", module.embed_tokens.weight)
        if module.embed_scale != 1.0:
            x = graph("Mul", x, float(module.embed_scale))
        kind = self.config.position_embedding_type
        if kind == "sinusoidal":
            x = graph("Add", x, graph("Gather", graph.tensor("positions", module.positions.table), positions))
        elif kind == "learned":
            x = graph("Add", x, graph("Gather", graph.parameter("positions", module.positions.weight), positions))
        return graph.norm(x, "layernorm_embedding", module.layernorm_embedding)

    def rotation(self, positions: str) -> tuple[str, str] | None:
        """Cosines and sines that turn queries and keys at positions (B or 1, S), (B or 1, S, 1, K); None without."""
        if self.config.position_embedding_type != "rope":
            return None
        graph, rope = self.graph, self.module.positions
        angles = graph("Mul", graph("Unsqueeze", graph.cast(positions, "float32"), [-1]), self.frequencies(positions))
        angles = graph("Unsqueeze", angles, [2])  # (B, S, 1, K/2)
        cos, sin = (graph("Mul", graph(name, angles), float(rope.attention_scaling)) for name in ("Cos", "Sin"))
        return graph("Concat", cos, cos, axis=-1), graph("Concat", graph("Neg", sin), sin, axis=-1)

    def frequencies(self, positions: str) -> str:
        """Angles between neighbouring positions, (K/2,), or (B, 1, K/2) where they depend on a text's length."""
        graph, rope = self.graph, self.module.positions
        constant = graph.tensor("frequencies", rope.inv_freq.float())
        if not hasattr(rope, "change"):
            return constant
        length = graph("Add", graph("ReduceMax", positions, axes=[1], keepdims=1), 1)
        length = graph("Unsqueeze", length, [-1])  # (B, 1, 1)
        change = graph.tensor("frequency_change", rope.change.float())
        if rope.rope_type == "longrope":
            return graph("Where", graph("Greater", length, rope.unchanged), change, constant)
        excess = graph("Sub", graph("Div", graph.cast(length, "float32"), float(rope.unchanged)), 1.0)
        factor = float(rope.config.rope_parameters["factor"])
        growth = graph("Add", graph("Mul", graph("Max", excess, 0.0), factor), 1.0)
        return graph("Mul", graph("Pow", growth, change), constant)

    def rotate(self, x: str, rotation: tuple[str, str] | None) -> str:
        """Turns the pairs `(x_i, x_{i + K/2})` of each head, (B, S, H, K)."""
        if rotation is None:
            return x
        graph, half = self.graph, self.head_dim // 2
        a, b = graph("Split", x, [half, half], axis=-1, outputs=2)
        cos, sin = rotation
        return graph("Add", graph("Mul", x, cos), graph("Mul", graph("Concat", b, a, axis=-1), sin))

    def biases(self, queries: str, keys: str) -> list[str]:
        """Biases of the scores by the distance of places in the row, (T,) and (S,): one a layer, (1, H, T, S)."""
        if self.config.position_embedding_type != "relative":
            return []
        graph, positions, most = self.graph, self.module.positions, self.config.relative_attention_max_distance
        # All distances from the largest one on share a bucket.
        distances = torch.arange(-most, most + 1)
        graph.used.add(id(positions.table.weight))
        tables = positions.table.weight[positions.buckets(distances)].unflatten(-1, (self.heads, -1))
        distance = graph("Sub", graph("Unsqueeze", keys, [0]), graph("Unsqueeze", queries, [1]))  # (T, S)
        row = graph("Add", graph("Clip", distance, -most, most), most)
        biases = []
        for i in range(positions.tables):
            table = graph.tensor(f"distances.{i}", tables[..., i])
            bias = graph("Transpose", graph("Gather", table, row), perm=[2, 0, 1])
            biases.append(graph("Unsqueeze", bias, [0]))
        return biases * positions.shared_by

    def scores_mask(self, seen: str) -> str:
        """Turns a condition into an addend of the scores."""
        return self.graph("Where", seen, 0.0, MASKED)

    def masks(self, seen: dict[str, str], biases: Sequence[str]) -> list[str]:
        """
        Returns what is added to the scores of each layer.

        Args:
            seen: Condition of each pattern of layers, (B or 1, 1, T or 1, S).
            biases: One a layer, or none.
        """
        addends = {pattern: self.scores_mask(each) for pattern, each in seen.items()}
        patterns = self.module.layer_patterns
        if not biases:
            return [addends[pattern] for pattern in patterns]
        pairs = list(zip(patterns, biases, strict=True))
        sums = {pair: self.graph("Add", addends[pair[0]], pair[1]) for pair in dict.fromkeys(pairs)}
        return [sums[pair] for pair in pairs]

    def split_heads(self, x: str, heads: int) -> str:
        """(B, S, heads * K) -> (B, heads, S, K)"""
        x = self.graph("Reshape", x, [0, 0, heads, self.head_dim])
        return self.graph("Transpose", x, perm=[0, 2, 1, 3])

    def attend(self, q: str, k: str, v: str, mask: str, scale: float) -> str:
        """Mixes values (B, G, S, K) by queries (B, H, T, K) and keys: (B, T, H * K)."""
        graph = self.graph
        q = graph("Mul", q, float(scale))
        is_grouped = self.kv_heads != self.heads
        if is_grouped:  # the queries of a group, one behind another, share its keys
            q = graph("Reshape", q, [0, self.kv_heads, -1, self.head_dim])
        scores = graph("MatMul", q, graph("Transpose", k, perm=[0, 1, 3, 2]))
        if is_grouped:
            scores = graph("Reshape", scores, [0, self.heads, -1, 0])  # (B, H, T, S)
        weights = graph("Softmax", graph("Add", scores, mask), axis=-1)
        if is_grouped:
            weights = graph("Reshape", weights, [0, self.kv_heads, -1, 0])
        x = graph("MatMul", weights, v)
        if is_grouped:
            x = graph("Reshape", x, [0, self.heads, -1, self.head_dim])
        x = graph("Transpose", x, perm=[0, 2, 1, 3])
        return graph("Reshape", x, [0, 0, self.heads * self.head_dim])

    def project(self, x: str, name: str, attention: Any, rotation: tuple[str, str] | None) -> tuple[str, str, str]:
        """Queries (B, H, S, K), keys and values (B, G, S, K) of self-attention."""
        graph, queries, keys = self.graph, self.heads, self.kv_heads
        qkv = graph.linear(x, f"{name}.qkv_proj", attention.q_proj, attention.k_proj, attention.v_proj)
        qkv = graph("Reshape", qkv, [0, 0, queries + 2 * keys, self.head_dim])
        qk, v = graph("Split", qkv, [queries + keys, keys], axis=2, outputs=2)
        if self.config.qk_norm:
            norms = (attention.q_norm, queries), (attention.k_norm, keys)
            graph.used |= {id(norm.weight) for norm, _ in norms}
            weight = torch.cat([norm.weight.detach().expand(heads, -1) for norm, heads in norms])  # (H + G, K)
            qk = graph.rms_norm(qk, graph.tensor(f"{name}.qk_norm", weight), self.config.norm_eps)
        q, k = graph("Split", self.rotate(qk, rotation), [queries, keys], axis=2, outputs=2)
        q, k, v = (graph("Transpose", each, perm=[0, 2, 1, 3]) for each in (q, k, v))
        return q, k, v

    def residual(self, x: str, y: str, name: str, layer: Any) -> str:
        """Joins features and a sublayer's output as the norm's place asks for."""
        if self.config.norm_position == "sandwich":
            return self.graph("Add", x, self.graph.norm(y, name, layer.norm))
        x = self.graph("Add", x, y)
        return self.graph.norm(x, name, layer.norm) if self.config.norm_position == "post" else x

    def feed_forward(self, x: str, name: str, layer: Any) -> str:
        """`down(act(gate(x)) * up(x))`, or `down(act(up(x)))`."""
        graph, activate = self.graph, ACTIVATIONS[self.config.activation_function]
        if not self.config.gated_ffn:
            inner = activate(graph, graph.linear(x, f"{name}.up_proj", layer.up_proj))
        else:
            width = layer.up_proj.out_features
            both = graph.linear(x, f"{name}.gate_up_proj", layer.gate_proj, layer.up_proj)
            gate, up = graph("Split", both, [width, width], axis=-1, outputs=2)
            inner = graph("Mul", activate(graph, gate), up)
        return graph.linear(inner, f"{name}.down_proj", layer.down_proj)


class EncoderGraph(StackGraph):
    """Token ids (B, S) and their mask to the memory (B, S, D)."""

    def __init__(self, graph: Graph, model: PreTrainedModel):
        super().__init__(graph, model, "encoder")

    def write(self) -> None:
        graph, module = self.graph, self.module
        ids = graph.input("input_ids", "int64", ("batch", "source"))
        mask = graph.input("attention_mask", "int64", ("batch", "source"))
        # Positions count the attended tokens, so that padding shifts none.
        positions = graph("Max", graph("Sub", graph("CumSum", mask, 1), 1), 0)  # (B, S)
        place = graph.range(0, graph.length(ids, 1))
        masks = self.masks(self.seen(mask, positions), self.biases(place, place))
        x, rotation = self.embed(ids, positions), self.rotation(positions)
        for i, layer in enumerate(module.layers):
            x = self.layer(x, f"layers.{i}", layer, masks[i], rotation)
        graph.output("last_hidden_state", graph.norm(x, "norm", module.norm), ("batch", "source", self.config.d_model))

    def seen(self, mask: str, positions: str) -> dict[str, str]:
        """Condition under which tokens attend to others, by pattern of layers: (B, 1, S or 1, S)."""
        graph = self.graph
        attended = graph("Unsqueeze", graph.cast(mask, "bool"), [1, 2])
        query, key = graph("Unsqueeze", positions, [1, 3]), graph("Unsqueeze", positions, [1, 2])
        seen = {}
        for pattern in dict.fromkeys(self.module.layer_patterns):
            blocks = self.module.block_patterns.get(pattern)
            seen[pattern] = attended
            if blocks is None:
                continue
            near = self.near(pattern, blocks, query, key)
            if blocks.global_tokens:
                for each in (query, key):
                    near = graph("Or", near, graph("Less", each, blocks.global_tokens))
            seen[pattern] = graph("And", near, attended)
        return seen

    def near(self, pattern: str, blocks: Any, query: str, key: str) -> str:
        """Condition that two tokens share a block or a window."""
        graph = self.graph
        if pattern == "sliding_attention":
            return graph("LessOrEqual", graph("Abs", graph("Sub", key, query)), blocks.size)
        before, _ = blocks.padding(0)
        query, key = (graph("Div", graph("Add", each, before), blocks.size) for each in (query, key))
        return graph("Equal", query, key)

    def layer(self, x: str, name: str, layer: Any, mask: str, rotation: tuple[str, str] | None) -> str:
        graph, attention = self.graph, layer.self_attention
        y = graph.norm(x, f"{name}.self_attention_norm", layer.self_attention_norm)
        q, k, v = self.project(y, f"{name}.self_attention", attention, rotation)
        y = graph.linear(self.attend(q, k, v, mask, attention.scaling), f"{name}.self_o_proj", attention.o_proj)
        x = self.residual(x, y, f"{name}.self_attention_residual", layer.self_attention_residual)
        y = graph.norm(x, f"{name}.feed_forward_norm", layer.feed_forward_norm)
        y = self.feed_forward(y, f"{name}.feed_forward", layer.feed_forward)
        return self.residual(x, y, f"{name}.feed_forward_residual", layer.feed_forward_residual)


class DecoderGraph(StackGraph):
    """
    Target token ids (B, T) to logits (B, T, V), with the keys and values of both sides going in and out.

    `use_cache_branch` says whether they go in: in the first call it is false, those given count for nothing, and the
    source's are computed from the memory. In later calls they are taken, and the memory counts for nothing.
    """

    def __init__(self, graph: Graph, model: PreTrainedModel):
        super().__init__(graph, model, "decoder")

    def write(self) -> None:
        graph, module, width = self.graph, self.module, self.config.d_model
        ids = graph.input("input_ids", "int64", ("batch", "target"))
        mask = graph.input("encoder_attention_mask", "int64", ("batch", "source"))
        memory = graph.input("encoder_hidden_states", "float32", ("batch", "memory", width))
        is_cached = graph.input("use_cache_branch", "bool", (1,))
        past = [self.past(i, is_cached) for i in range(self.config.decoder_layers)]
        # All of what is taken, and nothing of the other.
        memory = graph(
            "Slice", memory, [0], graph("Where", is_cached, [0], graph("Shape", memory, start=1, end=2)), [1]
        )
        before = graph.length(past[0]["decoder", "key"], 2)
        length = graph("Add", before, graph.length(ids, 1))
        place, keys = graph.range(before, length), graph.range(0, length)
        masks = self.masks(self.seen(place, keys), self.biases(place, keys))
        memory_mask = self.scores_mask(graph("Unsqueeze", graph.cast(mask, "bool"), [1, 2]))
        positions = graph("Unsqueeze", place, [0])
        x, rotation = self.embed(ids, positions), self.rotation(positions)
        for i, layer in enumerate(module.layers):
            x = self.layer(x, i, layer, masks[i], rotation, memory, memory_mask, past[i])
        x = graph.norm(x, "norm", module.norm)
        if self.model.output_scale != 1.0:
            x = graph("Mul", x, float(self.model.output_scale))
        logits = graph.linear(x, "lm_head", self.model.lm_head)
        graph.output("logits", logits, ("batch", "target", self.config.vocab_size))
        # In the order in which others read them.
        graph.outputs.sort(key=lambda output: output.name != "logits")

    def past(self, i: int, is_cached: str) -> dict[tuple[str, str], str]:
        """Declares the keys and values that go into layer i, by side and part; nothing of them without a cache."""
        graph, past = self.graph, {}
        for side in SIDES:
            length = "past" if side == "decoder" else "past_source"
            for part in PARTS:
                shape = ("batch", self.kv_heads, length, self.head_dim)
                value = graph.input(f"{PAST}.{i}.{side}.{part}", "float32", shape)
                size = graph("Where", is_cached, graph("Shape", value, start=2, end=3), [0])
                past[side, part] = graph("Slice", value, [0], size, [2])
        return past

    def present(self, i: int, side: str, past: dict[tuple[str, str], str], k: str, v: str) -> tuple[str, str]:
        """Puts keys and values (B, G, S, K) behind those that went in, and declares them to be outputs."""
        joined = []
        for part, value in zip(PARTS, (k, v), strict=True):
            value = self.graph("Concat", past[side, part], value, axis=2)
            length = "past + target" if side == "decoder" else "source"
            self.graph.output(f"{PRESENT}.{i}.{side}.{part}", value, ("batch", self.kv_heads, length, self.head_dim))
            joined.append(value)
        return joined[0], joined[1]

    def seen(self, queries: str, keys: str) -> dict[str, str]:
        """Condition under which tokens at places in the row attend to others, by pattern of layers: (1, 1, T, S)."""
        graph, size = self.graph, self.config.block_size
        query, key = graph("Unsqueeze", queries, [0, 1, 3]), graph("Unsqueeze", keys, [0, 1, 2])
        causal = graph("LessOrEqual", key, query)
        seen = {"full_attention": causal}
        for pattern in dict.fromkeys(self.module.layer_patterns):
            if pattern == "sliding_attention":
                near = graph("Less", graph("Sub", query, key), size)
                seen[pattern] = graph("And", causal, near)
            elif pattern == "chunked_attention":
                near = graph("Equal", *(graph("Div", each, size) for each in (query, key)))
                seen[pattern] = graph("And", causal, near)
        return seen

    def layer(
        self,
        x: str,
        i: int,
        layer: Any,
        mask: str,
        rotation: tuple[str, str] | None,
        memory: str,
        memory_mask: str,
        past: dict[tuple[str, str], str],
    ) -> str:
        graph, name, attention, cross = self.graph, f"layers.{i}", layer.self_attention, layer.cross_attention
        y = graph.norm(x, f"{name}.self_attention_norm", layer.self_attention_norm)
        q, k, v = self.project(y, f"{name}.self_attention", attention, rotation)
        k, v = self.present(i, "decoder", past, k, v)
        y = graph.linear(self.attend(q, k, v, mask, attention.scaling), f"{name}.self_o_proj", attention.o_proj)
        x = self.residual(x, y, f"{name}.self_attention_residual", layer.self_attention_residual)
        y = graph.norm(x, f"{name}.cross_attention_norm", layer.cross_attention_norm)
        q = self.split_heads(graph.linear(y, f"{name}.cross_q_proj", cross.q_proj), self.heads)
        kv = graph.linear(memory, f"{name}.cross_kv_proj", cross.k_proj, cross.v_proj)
        kv = self.split_heads(kv, 2 * self.kv_heads)
        k, v = graph("Split", kv, [self.kv_heads, self.kv_heads], axis=1, outputs=2)
        k, v = self.present(i, "encoder", past, k, v)
        y = graph.linear(self.attend(q, k, v, memory_mask, cross.scaling), f"{name}.cross_o_proj", cross.o_proj)
        x = self.residual(x, y, f"{name}.cross_attention_residual", layer.cross_attention_residual)
        y = graph.norm(x, f"{name}.feed_forward_norm", layer.feed_forward_norm)
        y = self.feed_forward(y, f"{name}.feed_forward", layer.feed_forward)
        return self.residual(x, y, f"{name}.feed_forward_residual", layer.feed_forward_residual)


def write_graphs(model: PreTrainedModel, int8: bool) -> tuple[dict[str, Any], list[str]]:
    """
    Writes both stacks.

    Returns:
        The graphs as `onnx.ModelProto`, by the name of their stack, and the model's parameters that are in neither.
    """
    assert isinstance(model.config, XformerConfig)
    graphs = {"encoder": Graph("encoder", int8), "decoder": Graph("decoder", int8)}
    EncoderGraph(graphs["encoder"], model).write()
    DecoderGraph(graphs["decoder"], model).write()
    used = graphs["encoder"].used | graphs["decoder"].used
    left = [name for name, parameter in model.named_parameters() if id(parameter) not in used]
    return {name: graph.model() for name, graph in graphs.items()}, left
