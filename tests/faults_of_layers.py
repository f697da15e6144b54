# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Faults of layers, stacks, the output layer and packed rows."""

from mutant import CONFIG, FUSING, LAYOUT, MODEL, OUTPUT, PACKING, STOCK, TRAINING, Mutant


MUTANTS = (
    # Layers and stacks
    Mutant(
        "the residual of a pre-norm layer is normed",
        """        y = self.feed_forward(self.feed_forward_norm(x))
        x = self.feed_forward_residual(x, y)
        return x


class""",
        """        x = self.feed_forward_norm(x)
        x = self.feed_forward_residual(x, self.feed_forward(x))
        return x


class""",
        (MODEL, STOCK),
        words="m2m100",
    ),
    Mutant(
        "a post-norm layer norms its sublayer alone",
        "return self.norm(x + self.thinned(y))",
        "return x + self.norm(self.dropout(y))",
    ),
    Mutant(
        "the epsilon of the norms is the library's",
        "eps=config.norm_eps)\n",
        "eps=1e-5)\n",
        (CONFIG,),
        words="norm_eps",
    ),
    Mutant(
        "the gate of the feed-forward is not activated",
        "self.act(gate) * y",
        "gate * self.act(y)",
        (STOCK,),
    ),
    Mutant(
        "given embeddings are not scaled",
        "return self.scaled(inputs_embeds)",
        "return inputs_embeds",
        words="embeds",
    ),
    Mutant(
        "the decoder's output is not scaled down",
        "config.d_model**-0.5 if config.scale_decoder_outputs else 1.0",
        "1.0",
        (CONFIG, STOCK),
        words="scale_decoder_outputs",
    ),
    Mutant(
        "under checkpointing the memory gets no gradient",
        "x, memory, masks[pattern], memory_mask, rotation, bias, **",
        "x, memory=memory, mask=masks[pattern], memory_mask=memory_mask, rotation=rotation, position_bias=bias, **",
        words="checkpointing",
    ),
    Mutant(
        "under checkpointing a layer writes to the cache",
        "rotation, bias, **{CACHE: cache}, **kwargs)",
        "rotation, bias, cache, **kwargs)",
        ("tests/models/test_versions_xformer.py",),
    ),
    # Output layer and loss
    Mutant(
        "the output layer is not tied",
        '_tied_weights_keys = {"lm_head.weight": "model.encoder.embed_tokens.weight"}',
        "_tied_weights_keys = {}",
        words="share",
    ),
    Mutant(
        "the stacks have an embedding each",
        "shared = None if config.encoder_vocab_size else self.encoder.embed_tokens",
        "shared = None",
        words="share",
    ),
    Mutant(
        "the labels are shifted twice",
        "self.loss_function = cross_entropy",
        'self.loss_type = "ForCausalLM"',
        words="loss",
    ),
    Mutant(
        "num_items_in_batch is ignored",
        "return total / (num_items_in_batch.to(total.device)",
        "return total / (labels != IGNORED).sum() if True else (num_items_in_batch.to(total.device)",
        (OUTPUT, TRAINING),
        words="loss",
    ),
    Mutant(
        "targets start with the end token",
        "shift_right(labels, segment_ids, self.config.decoder_start_token_id)",
        "shift_right(labels, segment_ids, self.config.eos_token_id)",
    ),
    Mutant(
        "one logit more than asked for is kept",
        "slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep)",
        "slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep + (logits_to_keep != 0))",
        words="logits_to_keep",
    ),
    Mutant(
        "an argument that is None hides the config's value",
        "for name, value in kwargs.items() if value is not None}",
        "for name, value in kwargs.items()}",
        words="none",
    ),
    Mutant(
        "a chunk of the loss forgets what is added for the chunks before",
        "loss = loss + losses.masked_fill(~counts, 0.0).sum()",
        "loss = losses.masked_fill(~counts, 0.0).sum()",
        (OUTPUT,),
        words="torchs",
    ),
    Mutant(
        "the gradient of a smoothed label is that of a sharp one",
        "grad.scatter_add_(1, own, (smoothing - 1) * counts.float())",
        "grad.scatter_add_(1, own, -counts.float())",
        (OUTPUT,),
        words="torchs",
    ),
    Mutant(
        "smoothed labels leave out the weights of the other tokens",
        "grad_weight -= spread * (x.to(dtype) * counted).sum(dim=0, dtype=torch.float32)",
        "pass",
        (OUTPUT,),
        words="torchs",
    ),
    Mutant(
        "elements that dropout keeps do not grow",
        ".to(x.dtype).mul_(LEVELS / kept)",
        ".to(x.dtype)",
        ("tests/models/test_dropout_xformer.py",),
        words="grows",
    ),
    Mutant(
        "tokens without a label have a gradient",
        "grad = probabilities.mul_(counts.float())",
        "grad = probabilities",
        (OUTPUT,),
        words="torchs",
    ),
    Mutant(
        "labels are smoothed in evaluation too",
        "smoothing = self.config.label_smoothing if self.training else 0.0",
        "smoothing = self.config.label_smoothing",
        (OUTPUT,),
        words="evaluation",
    ),
    Mutant(
        "a resized output layer computes all logits",
        "if type(new_embeddings) is not nn.Linear or not isinstance(self.lm_head, XformerOutputLayer):",
        "if True:",
        (OUTPUT,),
        words="resized",
    ),
    # Packed rows
    Mutant(
        "positions count through a packed row",
        "return places - (first_of_segments(ids) * places).cummax(dim=1).values",
        "return places + 0 * ids",
        (PACKING,),
        words="padded",
    ),
    Mutant(
        "padding behind a segment is attended to",
        "SegmentGroup(index, key_index, None if attended.all() else attended)",
        "SegmentGroup(index, key_index, None)",
        (PACKING,),
        words="padded",
    ),
    Mutant(
        "a group's results are taken for another's",
        "        done += index.numel()",
        "        done += 0",
        (PACKING,),
        words="groups",
    ),
    Mutant(
        "a packed row's targets have one start token",
        "return torch.where(first_of_segments(segment_ids), start, shifted)",
        "return shifted",
        (PACKING,),
        words="shifted or padded",
    ),
    Mutant(
        "in a graph segments see each other",
        "attended = own == keys[row, key]",
        "attended = own == own",
        (PACKING,),
        words="graph",
    ),
    Mutant(
        "in a graph packed rows have no blocks",
        "same_segment(self.segment_ids, keys.segment_ids, None if blocks is None else blocks.sees)",
        "same_segment(self.segment_ids, keys.segment_ids, None)",
        (PACKING,),
        words="graph and blocks",
    ),
    Mutant(
        "a packed step waits for the device",
        "index = labelled_positions(labels) if packing is None else Layout(packing).labelled(labels)",
        "index = labelled_positions(labels)",
        (LAYOUT,),
        words="waits or labelled",
    ),
    Mutant(
        "a layout of other rows is taken",
        "if ids is not None and tuple(ids.shape) != shape:",
        "if False:",
        (LAYOUT,),
        words="refused",
    ),
    Mutant(
        "a layout's tensors overlap",
        "            first += count",
        "            first += count - 1",
        (LAYOUT,),
        words="comes_back",
    ),
    Mutant(
        "relative positions of packed rows are those of the longest row",
        "bias[..., : group.queries.shape[1], : group.keys.shape[1]]",
        "bias[..., -group.queries.shape[1] :, : group.keys.shape[1]]",
        (PACKING,),
        words="relative",
    ),
    Mutant(
        "the norm's gradient has a part along its input",
        "along = (product @ weight).div_(-normed.shape[-1])",
        "along = (product @ weight).div_(1e9)",
        ("tests/models/test_sublayers_xformer.py",),
    ),
    # Joined products
    Mutant(
        "a change of weights is not noticed",
        "if self.state != states(self.layers) or",
        "if not self.state or",
        (FUSING,),
        words="old_weights",
    ),
    Mutant(
        "weights that moved are not noticed",
        "(each.data_ptr(), each._version)",
        "each._version",
        (FUSING,),
        words="old_weights",
    ),
    Mutant(
        "a layer in another's place is passed over",
        "product is None or product.layers != layers or wants_parameters()",
        "product is None or wants_parameters()",
        (FUSING,),
        words="old_weights or adapters",
    ),
    Mutant(
        "a layer that has got hooks is multiplied without them",
        " or wants_parameters() or any(map(is_watched, layers)):",
        " or wants_parameters():",
        (FUSING,),
        words="hooks",
    ),
    Mutant(
        "a change of weights through their data is not seen",
        " or self.some_numbers != [each.tobytes() for each in self.some_rows]:",
        ":",
        (FUSING,),
        words="old_weights",
    ),
    Mutant(
        "a change of one row through its data is not seen",
        "if self.numbers != [each.tobytes() for each in self.rows]:",
        "if False:",
        (FUSING,),
        words="row",
    ),
    Mutant(
        "a joined product has no biases",
        "self.bias = torch.cat(biases) if biases else None",
        "self.bias = None",
        (FUSING,),
        words="logits",
    ),
)
