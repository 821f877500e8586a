"""What a model costs, from shapes alone: operations, bytes, parameters, the speed-up of separation.

    dense, scd = shape_of(dense_config), shape_of(scd_config)
    encode_cost(scd, history=144), denoise_cost(scd, history=144)      # -> Cost of one pass
    predicted_speed_up(dense, scd, steps=50, history=144)

Pure arithmetic on one branch of guidance; `frame_cost` and `cache_bytes` count all branches. A multiply-add
is two operations. Counted are matrix products and attention, as torch's FlopCounterMode does; left out is
element-wise work: norms, rotation, activations, gates, Euler steps, which is 1/width of the rest.
"""

from dataclasses import dataclass, replace
from typing import Any

VALUE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Of a weight, and of a key or value, by dtype."""

SINUSOID = 256
"""Width of the time embedding's input."""


@dataclass(frozen=True)
class Shape:
    """All that decides the cost of a model; `fusion` None is a dense one, whose `layers` do everything.

    In a separated one `layers` are the decoder's, which run at every step; the encoder's run once a frame.
    """

    layers: int
    d_model: int
    heads: int
    mlp_width: int
    tokens: int
    """In a frame."""
    values: int
    """Numbers in a patch, channels x patch x patch."""
    encoder_layers: int = 0
    fusion: str | None = None
    conditions: int = 0
    text_tokens: int = 0
    text_width: int = 0
    window: int | None = None
    """Past frames in view; None for all."""
    sink: int = 0
    start_token: bool = False
    """Whether the encoder's history begins with a frame that is not one."""
    batch: int = 1
    branches: int = 1
    """2 under guidance: each branch is a pass of its own with its own history."""
    value_bytes: int = 4
    """Of a weight, and of a key or value."""

    def seen(self, history: int) -> int:
        """Frames in view of one that has `history` frames (or a start token and frames) before it."""
        return history if self.window is None else min(history, self.sink + self.window)

    @property
    def is_separated(self) -> bool:
        """Whether an encoder runs once per frame and a decoder at each step."""
        return self.fusion is not None


@dataclass(frozen=True)
class Cost:
    """One pass: operations, bytes of weights read, bytes of keys and values read and written, blocks run."""

    flops: int
    weight_bytes: int
    state_bytes: int
    blocks: int

    @property
    def bytes(self) -> int:
        """All bytes moved that are counted."""
        return self.weight_bytes + self.state_bytes

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.flops + other.flops,
            self.weight_bytes + other.weight_bytes,
            self.state_bytes + other.state_bytes,
            self.blocks + other.blocks,
        )

    def __mul__(self, times: int) -> "Cost":
        return Cost(
            times * self.flops, times * self.weight_bytes, times * self.state_bytes, times * self.blocks
        )


NOTHING = Cost(0, 0, 0, 0)


def shape_of(config: Any, **changes: Any) -> Shape:
    """The shape of a dense or separated model's configuration; `changes` such as batch=4, branches=2."""
    rows, cols = config.height // config.patch, config.width // config.patch
    shape = Shape(
        layers=config.layers if hasattr(config, "layers") else config.decoder_layers,
        d_model=config.d_model,
        heads=config.heads,
        mlp_width=config.mlp_width or 4 * config.d_model,
        tokens=rows * cols,
        values=config.channels * config.patch**2,
        encoder_layers=getattr(config, "encoder_layers", 0),
        fusion=getattr(config, "fusion", None),
        conditions=config.conditions,
        text_tokens=config.text_tokens,
        text_width=config.text_width,
        window=config.window,
        sink=config.sink,
        start_token=getattr(config, "start_token", False),
    )
    return replace(shape, **changes)


def encode_cost(shape: Shape, history: int) -> Cost:
    """Taking one finished frame into memory when `history` frames are there already."""
    if not shape.is_separated:
        keys = (shape.seen(history) + 1) * shape.tokens
        return _embedding(shape) + _modulation(shape, 1) + _blocks(shape, shape.tokens, keys)
    keys = (shape.seen(history + shape.start_token) + 1) * shape.tokens
    encoder = _encoder(shape)
    cost = _embedding(encoder) + _modulation(encoder, 1) + _blocks(encoder, shape.tokens, keys)
    return cost + prefix_cost(shape) if shape.fusion == "prefix" else cost


def prefix_cost(shape: Shape) -> Cost:
    """What the prefix fusion adds to each `encode`: the decoder over the context tokens, without output."""
    return _modulation(shape, 1) + _blocks(shape, shape.tokens, shape.tokens)


def denoise_cost(shape: Shape, history: int, modulated: bool = False) -> Cost:
    """One denoising step after `history` frames; `modulated` where scales and gates were prepared before."""
    n = shape.tokens
    queries = 2 * n if shape.fusion in ("token_concat", "token_concat_projected") else n
    keys = {"channel_concat": n, "add": n, None: (shape.seen(history) + 1) * n}.get(shape.fusion, 2 * n)
    cost = _embedding(shape) + _blocks(shape, queries, keys) + _join(shape)
    cost += _linear(shape, n, shape.d_model, shape.values)
    return cost if modulated else cost + _modulation(shape, 1)


def modulation_cost(shape: Shape, steps: int) -> Cost:
    """Scales, shifts and gates of all of a frame's steps at once; shared by a batch without actions."""
    return _modulation(shape if shape.conditions else replace(shape, batch=1), steps)


def start_cost(shape: Shape) -> Cost:
    """Before the first frame: keys and values of the prompt, and the encoder's pass over the start token."""
    cost = _text_keys(shape) + (_text_keys(_encoder(shape)) if shape.is_separated else NOTHING)
    if not shape.start_token:
        return cost
    encoder = _encoder(shape)
    cost += _modulation(encoder, 1) + _blocks(encoder, shape.tokens, shape.tokens)
    return cost + prefix_cost(shape) if shape.fusion == "prefix" else cost


def frame_cost(shape: Shape, steps: int, history: int) -> Cost:
    """One frame, all branches: `steps` denoising steps, modulated at once, and reading the result."""
    passes = denoise_cost(shape, history, modulated=True) * steps
    return (passes + modulation_cost(shape, steps) + encode_cost(shape, history)) * shape.branches


def predicted_speed_up(dense: Shape, scd: Shape, steps: int, history: int) -> float:
    """How many times fewer operations a frame takes."""
    return frame_cost(dense, steps, history).flops / frame_cost(scd, steps, history).flops


def speed_up_bound(dense: Shape, scd: Shape, history: int) -> float:
    """What `predicted_speed_up` tends to as steps grow: the ratio of one step, its modulation included."""
    theirs, ours = (
        (denoise_cost(shape, history, modulated=True) + modulation_cost(shape, 1)) * shape.branches
        for shape in (dense, scd)
    )
    return theirs.flops / ours.flops


def parameters(shape: Shape) -> int:
    """All of a model's weights."""
    stacks = [shape, _encoder(shape)] if shape.is_separated else [shape]
    weights = sum(_modulation(stack, 1).weight_bytes + _text_keys(stack).weight_bytes for stack in stacks)
    weights += sum((_embedding(stack) + _blocks(stack, 1, 1)).weight_bytes for stack in stacks)
    weights += (_join(shape) + _linear(shape, 1, shape.d_model, shape.values)).weight_bytes
    tables = len(stacks) * (shape.conditions + 1) if shape.conditions else 0
    return weights // shape.value_bytes + (tables + shape.start_token) * shape.d_model


def cache_bytes(shape: Shape, history: int) -> int:
    """Keys and values held once `history` frames were read, all branches: past, prefix, prompt.

    What is allocated may be up to twice as much, since a cache grows by doubling.
    """
    frames = shape.layers * shape.seen(history)
    if shape.is_separated:
        frames = shape.encoder_layers * shape.seen(history + shape.start_token)
        frames += shape.layers if shape.fusion == "prefix" else 0
    tokens = frames * shape.tokens + (shape.layers + shape.encoder_layers) * shape.text_tokens
    return 2 * tokens * shape.d_model * shape.value_bytes * shape.batch * shape.branches


def _linear(shape: Shape, rows: int, inputs: int, outputs: int, count: int = 1) -> Cost:
    """`count` linear layers with bias on that many rows of each clip."""
    weights = count * (inputs + 1) * outputs
    return Cost(2 * shape.batch * rows * count * inputs * outputs, weights * shape.value_bytes, 0, 0)


def _encoder(shape: Shape) -> Shape:
    return replace(shape, layers=shape.encoder_layers)


def _embedding(shape: Shape) -> Cost:
    return _linear(shape, shape.tokens, shape.values, shape.d_model)


def _modulation(shape: Shape, steps: int) -> Cost:
    """Time embedding, the adaLN of every block and of the final norm."""
    d = shape.d_model
    cost = _linear(shape, steps, SINUSOID, d) + _linear(shape, steps, d, d)
    return cost + _linear(shape, steps, d, 3 * d, 2 * shape.layers) + _linear(shape, steps, d, 2 * d)


def _blocks(shape: Shape, queries: int, keys: int) -> Cost:
    """Attention, attention to the prompt and MLP of all blocks, without adaLN."""
    d, text, layers = shape.d_model, shape.text_tokens, shape.layers
    cost = _linear(shape, queries, d, d, (6 if text else 4) * layers)
    cost += _linear(shape, queries, d, shape.mlp_width, layers)
    cost += _linear(shape, queries, shape.mlp_width, d, layers)
    norms = layers * (2 * (d // shape.heads) + (3 * d if text else 0)) * shape.value_bytes
    products = 4 * shape.batch * layers * queries * (keys + text) * d
    state = 2 * shape.batch * layers * (queries + keys + text) * d * shape.value_bytes
    return cost + Cost(products, norms, state, layers)


def _join(shape: Shape) -> Cost:
    d = shape.d_model
    if shape.fusion == "token_concat_projected":
        return _linear(shape, shape.tokens, d, d) + Cost(0, 2 * d * shape.value_bytes, 0, 0)
    return _linear(shape, shape.tokens, 2 * d, d) if shape.fusion == "channel_concat" else NOTHING


def _text_keys(shape: Shape) -> Cost:
    """Keys and values of the prompt for every block."""
    if not shape.text_tokens:
        return NOTHING
    d, rows = shape.d_model, shape.text_tokens
    cost = _linear(shape, rows, shape.text_width, d) + _linear(shape, rows, d, d)
    norms = shape.layers * d * shape.value_bytes
    return cost + _linear(shape, rows, d, d, 2 * shape.layers) + Cost(0, norms, 0, 0)
