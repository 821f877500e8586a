"""What a model costs, from shapes alone: operations, bytes, parameters, the speed-up of separation.

    dense, scd = shape_of(dense_config), shape_of(scd_config)
    encode_cost(scd, history=144), denoise_cost(scd, history=144)      # -> Cost of one pass
    predicted_speed_up(dense, scd, steps=50, history=144)

Pure arithmetic on one branch of guidance; `frame_cost` and `cache_bytes` count all branches. A multiply-add
is two operations. Counted are matrix products and attention, as torch's FlopCounterMode does; left out is
element-wise work: norms, rotation, activations, gates, Euler steps, which is 1/width of the rest (but more
than that of the time: a `Machine` has measured it with the linear layers, beside which it is done).
"""

from dataclasses import dataclass, replace

from framelens.models.cost.shape import VALUE_BYTES as VALUE_BYTES
from framelens.models.cost.shape import Shape as Shape
from framelens.models.cost.shape import shape_of as shape_of

SINUSOID = 256
"""Width of the time embedding's input."""


@dataclass(frozen=True)
class Cost:
    """What one pass, or several, computes and moves."""

    linear_flops: int = 0
    """Operations of linear layers."""
    attention_flops: int = 0
    """Operations of attention's two products."""
    weight_bytes: int = 0
    """Read."""
    state_bytes: int = 0
    """Of queries, keys and values, read and written."""
    blocks: int = 0
    """Run."""

    @property
    def flops(self) -> int:
        """All operations that are counted."""
        return self.linear_flops + self.attention_flops

    @property
    def bytes(self) -> int:
        """Bytes of weights, queries, keys and values."""
        return self.weight_bytes + self.state_bytes

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    def __mul__(self, times: int) -> "Cost":
        return Cost(**{name: times * value for name, value in vars(self).items()})


NOTHING = Cost()


def encode_cost(shape: Shape, history: int) -> Cost:
    """Taking one finished frame into memory when `history` frames are there already."""
    if not shape.is_separated:
        return _embedding(shape) + _modulation(shape, 1) + _over_past(shape, history)
    encoder, past = _encoder(shape), history + shape.start_token
    once = _embedding(encoder) + _modulation(encoder, 1)
    cost = once + _over_past(encoder, past)
    if shape.query:
        cost += once + _over_past(encoder, past + 1)
    return cost + prefix_cost(shape)


def prefix_cost(shape: Shape) -> Cost:
    """What the prefix fusion adds to each `encode`: the decoder over the context tokens, without output."""
    if shape.fusion != "prefix":
        return NOTHING
    return _modulation(shape, 1) + _blocks(shape, shape.tokens, shape.tokens)


def denoise_cost(shape: Shape, history: int, modulated: bool = False) -> Cost:
    """One denoising step after `history` frames; `modulated` where scales and gates were prepared before."""
    n = shape.tokens
    queries = 2 * n if shape.fusion in ("token_concat", "token_concat_projected") else n
    keys = n if shape.fusion in ("channel_concat", "add", "residual") else 2 * n
    through = _blocks(shape, queries, keys) if shape.is_separated else _over_past(shape, history)
    cost = _embedding(shape) + through + _join(shape)
    cost += _linear(shape, n, shape.d_model, shape.values)
    return cost if modulated else cost + _modulation(shape, 1)


def modulation_cost(shape: Shape, steps: int) -> Cost:
    """Scales, shifts and gates of all of a frame's steps at once; shared by a batch without actions."""
    return _modulation(shape if shape.conditions else replace(shape, batch=1), steps)


def start_cost(shape: Shape) -> Cost:
    """Before the first frame: keys and values of the prompt, and the encoder's pass over the start token or
    over noise."""
    encoder = _encoder(shape)
    cost = _text_keys(shape) + (_text_keys(encoder) if shape.is_separated else NOTHING)
    if not shape.start_token and not shape.query:
        return cost
    cost += _modulation(encoder, 1) + _over_past(encoder, 0) + prefix_cost(shape)
    return cost if shape.start_token else cost + _embedding(encoder)


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
    frames = shape.layers * shape.frames_in_view(history)
    if shape.is_separated:
        frames = shape.encoder_layers * shape.frames_in_view(history + shape.start_token)
        frames += shape.layers if shape.fusion == "prefix" else 0
    tokens = frames * shape.tokens + (shape.layers + shape.encoder_layers) * shape.text_tokens
    return 2 * tokens * shape.d_model * shape.value_bytes * shape.batch * shape.branches


def _linear(shape: Shape, rows: int, inputs: int, outputs: int, count: int = 1) -> Cost:
    """`count` linear layers with bias on that many rows of each clip."""
    weights = count * (inputs + 1) * outputs
    flops = 2 * shape.batch * rows * count * inputs * outputs
    return Cost(linear_flops=flops, weight_bytes=weights * shape.value_bytes)


def _encoder(shape: Shape) -> Shape:
    """The encoder alone."""
    return replace(shape, layers=shape.encoder_layers, encoder_layers=0)


def _embedding(shape: Shape) -> Cost:
    return _linear(shape, shape.tokens, shape.values, shape.d_model)


def _modulation(shape: Shape, steps: int) -> Cost:
    """Time embedding, the adaLN of every block, or their shared one, and of the final norm."""
    d = shape.d_model
    cost = _linear(shape, steps, SINUSOID, d) + _linear(shape, steps, d, d)
    if shape.shared_modulation:
        tables = (6 * shape.layers + 2) * d
        return cost + _linear(shape, steps, d, 6 * d) + Cost(weight_bytes=tables * shape.value_bytes)
    cost += _linear(shape, steps, d, 3 * d, 2 * shape.layers)
    is_encoder = shape.is_separated and not shape.encoder_layers
    return cost if is_encoder and shape.fusion == "residual" else cost + _linear(shape, steps, d, 2 * d)


def _over_past(shape: Shape, history: int) -> Cost:
    """All blocks over a frame's tokens, which see themselves and `history` frames."""
    return _blocks(shape, shape.tokens, (shape.frames_in_view(history) + 1) * shape.tokens)


def _blocks(shape: Shape, queries: int, keys: int) -> Cost:
    """Attention, attention to the prompt and MLP of all blocks, without adaLN."""
    d, text, layers = shape.d_model, shape.text_tokens, shape.layers
    cost = _linear(shape, queries, d, d, (6 if text else 4) * layers)
    cost += _linear(shape, queries, d, shape.mlp_width, layers)
    cost += _linear(shape, queries, shape.mlp_width, d, layers)
    return cost + Cost(
        attention_flops=4 * shape.batch * layers * queries * (keys + text) * d,
        weight_bytes=layers * (2 * (d // shape.heads) + (3 * d if text else 0)) * shape.value_bytes,
        state_bytes=2 * shape.batch * layers * (queries + keys + text) * d * shape.value_bytes,
        blocks=layers,
    )


def _join(shape: Shape) -> Cost:
    d = shape.d_model
    if shape.fusion == "token_concat_projected":
        return _linear(shape, shape.tokens, d, d) + Cost(weight_bytes=2 * d * shape.value_bytes)
    return _linear(shape, shape.tokens, 2 * d, d) if shape.fusion == "channel_concat" else NOTHING


def _text_keys(shape: Shape) -> Cost:
    """Keys and values of the prompt for every block."""
    if not shape.text_tokens:
        return NOTHING
    d, rows = shape.d_model, shape.text_tokens
    cost = _linear(shape, rows, shape.text_width, d) + _linear(shape, rows, d, d)
    norms = shape.layers * d * shape.value_bytes
    return cost + _linear(shape, rows, d, d, 2 * shape.layers) + Cost(weight_bytes=norms)
