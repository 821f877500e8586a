"""The bytes that a training holds at its peak, by what uses them, computed from shapes.

    step = TrainingStep(shape_of(config, batch=6, value_bytes=2), frames=12)
    sum(step.bytes().values())                          # of one card

Weights, gradients and optimiser are float32; the forward pass computes with `shape.value_bytes`. A block
keeps for its backward pass, for each of its tokens, with d and m the widths of the stream and inside the MLP:

    two layer norms: input, output, and the output of the branch after each         6 d
    scale and gate, repeated for the tokens where a pass holds several frames       4 d
    inputs of the projections to queries, to the stream, and of the MLP             3 d
    inside the MLP, before and after the GELU                                       2 m
    queries                                                                         d
    their norm and that of the keys, in float32                                     4 d
    keys and values                                                                 2 d, by each key read
    the prompt, where there is one                                                  6 d

A fused kernel (on a GPU) keeps each key once, and a mask of all pairs of tokens in each layer where a pass
holds several frames. On a CPU a frame attends explicitly: keys and values are kept by each frame that reads
them, and its map in float32. On a GPU a layer norm of 16-bit values computes in float32. With `recompute` a
block keeps its input alone, and one block at a time all of the above. Left out: gradients of activations
(those of one block at a time), what the allocator keeps, kernels' workspace, the CUDA context.

On a CPU the activations are within 3 % of the bytes that torch keeps (tests/test_training_memory.py). Nothing
was measured on a GPU. Blocks of other projects (Wan) are counted as if they were framelens' own.
"""

from dataclasses import dataclass, replace

from framelens.models.cost.operations import SINUSOID, Shape, parameters, stack_parameters

MASTER = 4
"""Bytes of a weight, a gradient and a value of the optimiser."""


@dataclass(frozen=True)
class _Pass:
    """A pass of a stack over frames: counts of what each of its blocks keeps."""

    layers: int
    tokens: int
    """Tokens of all clips."""
    rows: int
    """Noise levels of all clips: one a frame."""
    keys: int
    """Keys that are kept, of all clips."""
    pairs: int
    """Numbers in a layer's maps or masks, of all clips and heads."""
    pair_bytes: int
    is_repeated: bool
    """Whether scales and gates are repeated for the tokens of each frame."""
    is_wide: bool
    """Whether the residual stream is float32 though the pass computes in 16 bits."""


@dataclass(frozen=True)
class TrainingStep:
    """One optimiser step; the shape gives the clips of all cards and the bytes of a value in a pass."""

    shape: Shape
    frames: int
    draws: int = 1
    """Noise draws of a clip: passes of a separated network's decoder for one of its encoder."""
    recompute: bool = False
    fused: bool = True
    """Whether attention is one kernel, as on a GPU."""
    muon: bool = False
    """Whether the blocks' matrices are trained by Muon, which keeps one value a weight; AdamW keeps two."""
    decoder_only: bool = False
    """Whether a separated network's encoder is frozen."""
    beside: int = 0
    """Networks beside the trained one: teacher and target of a distillation."""
    lora: int | None = None
    """Rank of matrices that are trained in place of the blocks' own, which stay as they are, in float32."""
    gpus: int = 1
    """Cards that share the clips and, by FSDP2, weights, gradients, optimiser and average."""

    def bytes(self) -> dict[str, int]:
        """Bytes of one card by what uses them."""
        whole, trained = parameters(self.shape), self.trained
        held = whole + trained if self.lora else whole
        beside = {"teacher and target": self.beside * whole * MASTER} if self.beside else {}
        divided = {
            "weights": held * MASTER,
            **beside,
            "gradients": trained * MASTER,
            "optimiser": self._optimiser_values * MASTER,
            "average": (trained if self.lora else whole) * MASTER,
        }
        parts = {name: -(-size // self.gpus) for name, size in divided.items()}
        if self.gpus > 1:
            parts["weights of two gathered blocks"] = 2 * self._block_weights * MASTER
        if self.shape.value_bytes < MASTER:
            # Copies of frozen weights are not cached: they live as long as the graph of their block.
            copied = trained + self._block_weights if self.lora and self.recompute else held
            parts["weights as the pass computes"] = -(-copied * self.shape.value_bytes // self.gpus)
        return parts | {"activations": activation_bytes(self)}

    @property
    def trained(self) -> int:
        """Number of trained weights."""
        shape = self.shape
        if self.lora:
            return self._trained_layers * self.lora * _matrix_sides(shape)
        if self.decoder_only:
            return stack_parameters(shape) + (shape.d_model + 1) * shape.values
        return parameters(shape)

    @property
    def _trained_layers(self) -> int:
        return self.shape.layers + (0 if self.decoder_only else self.shape.encoder_layers)

    @property
    def _optimiser_values(self) -> int:
        d, m = self.shape.d_model, self.shape.mlp_width
        matrices = self._trained_layers * ((8 if self.shape.text_tokens else 4) * d * d + 2 * d * m)
        return 2 * self.trained - (matrices if self.muon and not self.lora else 0)

    @property
    def _block_weights(self) -> int:
        return parameters(replace(self.shape, layers=self.shape.layers + 1)) - parameters(self.shape)


def activation_bytes(step: TrainingStep) -> int:
    """Bytes that the forward pass of a card's clips keeps for the backward pass."""
    clips = -(-step.shape.batch // step.gpus)
    step = replace(step, shape=replace(step.shape, batch=clips))
    shape, s, around = step.shape, step.shape.value_bytes, 0
    passes = _passes(step)
    for each in passes:
        around += s * (each.rows * (SINUSOID + 5 * shape.d_model) + each.tokens * shape.d_model)
    outputs = clips * step.frames * step.draws * shape.tokens
    around += outputs * (s * (3 * shape.d_model + shape.values) + 2 * MASTER * shape.values)
    if shape.fusion in ("token_concat_projected", "channel_concat"):
        around += outputs * shape.d_model * 2 * (s if shape.fusion == "channel_concat" else MASTER)
    around += clips * shape.text_tokens * s * (shape.text_width + 3 * shape.d_model)
    blocks = [_block_bytes(shape, each, step.fused) for each in passes]
    if not step.recompute:
        return around + sum(each.layers * size for each, size in zip(passes, blocks, strict=True))
    kept = sum(each.layers * s * shape.d_model * (each.tokens + 6 * each.rows) for each in passes)
    return around + kept + max(blocks)


def _block_bytes(shape: Shape, each: _Pass, fused: bool) -> int:
    """Bytes that one block keeps; see the table above."""
    d, s = shape.d_model, shape.value_bytes
    width = (6 + 3 + 1 + (6 if shape.text_tokens else 0)) * d + 2 * shape.mlp_width
    kept = each.tokens * (s * width + 4 * d * MASTER) + each.keys * 2 * d * s
    kept += s * 4 * d * (each.tokens if each.is_repeated else each.rows)
    kept += each.pairs * each.pair_bytes
    if fused:
        kept += each.tokens * shape.heads * 4
    if s < MASTER and (fused or each.is_wide):
        kept += each.tokens * d * (4 * (MASTER - s) + 2 * s)
    if shape.text_tokens:
        kept += each.tokens * d * 3 * (MASTER - s)
    return kept + shape.batch * shape.text_tokens * 4 * d * s


def _passes(step: TrainingStep) -> list[_Pass]:
    """The passes of one step that gradients go through."""
    shape, n, f = step.shape, step.shape.tokens, step.frames
    if not shape.is_separated:
        return [_over_clip(step, shape.layers, 2)]
    alone = shape.query_layer if shape.asks else shape.encoder_layers
    encoder = [_over_clip(step, alone, 1), _over_clip(step, shape.encoder_layers - alone, 2)]
    encoder = [] if step.decoder_only else [each for each in encoder if each.layers]
    frames = shape.batch * f
    queries = 2 * n if shape.fusion in ("token_concat", "token_concat_projected") else n
    keys = 2 * n if shape.fusion == "prefix" else queries
    is_prefix = shape.fusion == "prefix"
    is_wide = shape.is_wide and shape.fusion in ("token_concat", "add", "residual")
    decoder = [_over_frames(step, frames * step.draws, queries, keys, is_wide)]
    context = [_over_frames(step, frames, n, n, shape.is_wide)] if is_prefix else []
    return [*encoder, *context, *decoder]


def _over_clip(step: TrainingStep, layers: int, copies: int) -> _Pass:
    """A pass over whole clips; `copies` is 2 where the noisy frames stand beside the clean ones."""
    shape, n, f = step.shape, step.shape.tokens, step.frames
    tokens = copies * f * n
    seen = copies * sum(shape.frames_in_view(frame) + 1 for frame in range(f)) * n
    if step.fused:
        keys, pairs, size = shape.batch * tokens, tokens * tokens, shape.value_bytes
    else:
        keys, pairs, size = shape.batch * seen, shape.batch * shape.heads * seen * n, _map_bytes(shape)
    rows = shape.batch * copies * f
    return _Pass(layers, shape.batch * tokens, rows, keys, pairs, size, f > 1, shape.is_wide)


def _over_frames(step: TrainingStep, frames: int, queries: int, keys: int, is_wide: bool) -> _Pass:
    """A pass of the decoder, in which frames stand side by side and do not see each other."""
    shape = step.shape
    pairs = 0 if step.fused else frames * shape.heads * queries * keys
    tokens, size = frames * queries, _map_bytes(shape)
    return _Pass(shape.layers, tokens, frames, frames * keys, pairs, size, False, is_wide)


def _map_bytes(shape: Shape) -> int:
    """Bytes of a number of an explicit map: the softmax in float32, and its copy in the type of the pass."""
    return MASTER + (shape.value_bytes if shape.value_bytes < MASTER else 0)


def _matrix_sides(shape: Shape) -> int:
    """The sum of inputs and outputs of a block's matrices: attention, attention to the prompt, MLP."""
    d, m = shape.d_model, shape.mlp_width
    return (8 if shape.text_tokens else 4) * 2 * d + 2 * (d + m)
