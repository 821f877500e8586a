"""What a model costs, from shapes alone: operations, bytes, parameters, the speed-up of separation.

    dense, scd = shape_of(dense_config), shape_of(scd_config)
    encode_cost(scd, history=144), denoise_cost(scd, history=144)      # -> Cost of one pass
    predicted_speed_up(dense, scd, steps=50, history=144)

Pure arithmetic on one branch of guidance; `frame_cost` and `cache_bytes` count all branches. A multiply-add
is two operations. Matrix products and attention count, as in torch's FlopCounterMode. Element-wise work does
not: norms, rotation, activations, gates and Euler steps are 1/width of the operations. Their share of the
time is larger; a `Machine` measures them together with the linear layers.
"""

from dataclasses import dataclass, replace

from framelens.models.cost.shape import VALUE_BYTES as VALUE_BYTES
from framelens.models.cost.shape import Shape as Shape
from framelens.models.cost.shape import kept_bytes as kept_bytes
from framelens.models.cost.shape import shape_of as shape_of

SINUSOID = 256
"""Width of the time embedding's input."""


@dataclass(frozen=True)
class Cost:
    """Operations and bytes of one pass, or of several."""

    linear_flops: int = 0
    """Operations of linear layers."""
    attention_flops: int = 0
    """Operations of attention's two products."""
    weight_bytes: int = 0
    """Bytes of weights, read."""
    state_bytes: int = 0
    """Bytes of queries, keys and values, read and written."""
    blocks: int = 0
    """Number of blocks that run."""

    @property
    def flops(self) -> int:
        """All operations that count."""
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
    """Cost of encoding one finished frame after `history` frames."""
    if not shape.is_separated:
        return _embedding(shape) + _modulation(shape, 1) + _over_past(shape.that_remembers, history)
    encoder, past = encoder_of(shape), history + shape.start_token
    cost = _embedding(encoder) + _modulation(encoder, 1) + _over_past(encoder, past)
    if shape.asks:  # in one pass: weights are read once, and in the last layer only query tokens attend
        last = 0 if shape.fusion == "residual" else 1
        unread = _over_past(replace(encoder, layers=last, text_tokens=0), past).attention_flops
        once = {"weight_bytes": cost.weight_bytes, "blocks": cost.blocks}
        cost = replace(cost + _asking_cost(encoder, past + 1) + Cost(attention_flops=-unread), **once)
    return cost + prefix_cost(shape)


def _asking_cost(encoder: Shape, past: int) -> Cost:
    """Cost of the encoder's pass over query tokens after that many frames; only noise is embedded."""
    layers = encoder.layers - encoder.query_layer
    cost = _modulation(encoder, 1) + _over_past(replace(encoder, layers=layers), past)
    return cost + _embedding(encoder) if encoder.query == "noise" else cost


def prefix_cost(shape: Shape) -> Cost:
    """Cost that the prefix fusion adds to each `encode`: the decoder over the context tokens, no output."""
    if shape.fusion != "prefix":
        return NOTHING
    return _modulation(shape, 1) + _blocks(shape, shape.tokens, shape.tokens)


def denoise_cost(shape: Shape, history: int, modulated: bool = False) -> Cost:
    """Cost of one denoising step after `history` frames; `modulated`: scales and gates are prepared.

    Of a model that fetches the past once it is a step that reuses it.
    """
    n = shape.tokens
    if shape.past_layers is not None:
        alone = denoise_cost(replace(shape, past_layers=None), 0, modulated)
        return alone + Cost(state_bytes=kept_bytes(shape))
    queries = 2 * n if shape.fusion in ("token_concat", "token_concat_projected") else n
    keys = n if shape.fusion in ("channel_concat", "add", "residual") else 2 * n
    through = _blocks(shape, queries, keys) if shape.is_separated else _over_past(shape, history)
    cost = _embedding(shape) + through + _join(shape)
    cost += _linear(shape, n, shape.d_model, shape.values)
    return cost if modulated else cost + _modulation(shape, 1)


def fetch_cost(shape: Shape, history: int) -> Cost:
    """Cost of the first step of a frame in a model that fetches the past once, modulation prepared."""
    layers = shape.past_layers or 0
    alone = _blocks(replace(shape, layers=layers), shape.tokens, shape.tokens)
    over_past = _over_past(replace(shape, layers=layers), history)
    more = over_past.attention_flops - alone.attention_flops, over_past.state_bytes - alone.state_bytes
    return denoise_cost(shape, history, modulated=True) + Cost(attention_flops=more[0], state_bytes=more[1])


def step_costs(shape: Shape, steps: int, history: int) -> list[tuple[int, Cost]]:
    """Numbers of denoising steps of a frame that cost the same, and the cost of one, modulation prepared."""
    each = denoise_cost(shape, history, modulated=True)
    return (
        [(steps, each)] if shape.past_layers is None else [(1, fetch_cost(shape, history)), (steps - 1, each)]
    )


def modulation_cost(shape: Shape, steps: int) -> Cost:
    """Cost of scales, shifts and gates of all steps of a frame; a batch without actions shares them."""
    return _modulation(shape if shape.conditions else replace(shape, batch=1), steps)


def start_cost(shape: Shape) -> Cost:
    """Cost before the first frame: the prompt's keys and values, one pass over start token or noise."""
    encoder = encoder_of(shape)
    cost = _text_keys(shape) + (_text_keys(encoder) if shape.is_separated else NOTHING)
    if shape.asks:
        return cost + _asking_cost(encoder, 0) + prefix_cost(shape)
    if not shape.start_token:
        return cost
    return cost + _modulation(encoder, 1) + _over_past(encoder, 0) + prefix_cost(shape)


def frame_cost(shape: Shape, steps: int, history: int) -> Cost:
    """Cost of one frame, all branches: `steps` denoising steps with prepared modulation, and one encode."""
    passes = NOTHING
    for count, step in step_costs(shape, steps, history):
        passes += step * count
    return (passes + modulation_cost(shape, steps) + encode_cost(shape, history)) * shape.branches


def predicted_speed_up(dense: Shape, scd: Shape, steps: int, history: int) -> float:
    """How many times fewer operations a frame takes."""
    return frame_cost(dense, steps, history).flops / frame_cost(scd, steps, history).flops


def speed_up_bound(dense: Shape, scd: Shape, history: int) -> float:
    """Limit of `predicted_speed_up` for many steps: the ratio of one step, its modulation included."""
    theirs, ours = (
        (denoise_cost(shape, history, modulated=True) + modulation_cost(shape, 1)) * shape.branches
        for shape in (dense, scd)
    )
    return theirs.flops / ours.flops


def parameters(shape: Shape) -> int:
    """Number of a model's weights."""
    stacks = [shape, encoder_of(shape)] if shape.is_separated else [shape]
    weights = (_join(shape) + _linear(shape, 1, shape.d_model, shape.values)).weight_bytes
    within = sum(stack_parameters(stack) for stack in stacks)
    return within + weights // shape.value_bytes + shape.learned_vectors * shape.d_model


def stack_parameters(shape: Shape) -> int:
    """Number of weights of `layers` blocks and what embeds frames, noise levels, conditions and prompt."""
    cost = _modulation(shape, 1) + _text_keys(shape) + _embedding(shape) + _blocks(shape, 1, 1)
    tables = shape.conditions + 1 if shape.conditions else 0
    return cost.weight_bytes // shape.value_bytes + tables * shape.d_model


def cache_bytes(shape: Shape, history: int) -> int:
    """Bytes of keys and values after `history` frames, all branches: past, prefix, prompt, what is kept of
    attention.

    The allocated memory may be up to twice as large, since a cache grows by doubling.
    """
    frames = shape.that_remembers.layers * shape.frames_in_view(history)
    if shape.is_separated:
        frames = shape.encoder_layers * shape.frames_in_view(history + shape.start_token)
        frames += shape.layers if shape.fusion == "prefix" else 0
    tokens = frames * shape.tokens + (shape.layers + shape.encoder_layers) * shape.text_tokens
    held = 2 * tokens * shape.d_model * shape.value_bytes * shape.batch
    return (held + kept_bytes(shape)) * shape.branches


def _linear(shape: Shape, rows: int, inputs: int, outputs: int, count: int = 1) -> Cost:
    """Cost of `count` linear layers with bias on that many rows of each clip."""
    weights = count * (inputs + 1) * outputs
    flops = 2 * shape.batch * rows * count * inputs * outputs
    return Cost(linear_flops=flops, weight_bytes=weights * shape.value_bytes)


def encoder_of(shape: Shape) -> Shape:
    """The shape of the encoder alone."""
    return replace(shape, layers=shape.encoder_layers, encoder_layers=0)


def _embedding(shape: Shape) -> Cost:
    return _linear(shape, shape.tokens, shape.values, shape.d_model)


def _modulation(shape: Shape, steps: int) -> Cost:
    """Cost of time embedding, adaLN of every block (or the shared one) and of the final norm."""
    d = shape.d_model
    cost = _linear(shape, steps, SINUSOID, d) + _linear(shape, steps, d, d)
    if shape.shared_modulation:
        tables = (6 * shape.layers + 2) * d
        return cost + _linear(shape, steps, d, 6 * d) + Cost(weight_bytes=tables * shape.value_bytes)
    cost += _linear(shape, steps, d, 3 * d, 2 * shape.layers)
    is_encoder = shape.is_separated and not shape.encoder_layers
    return cost if is_encoder and shape.fusion == "residual" else cost + _linear(shape, steps, d, 2 * d)


def _over_past(shape: Shape, history: int) -> Cost:
    """Cost of all blocks over a frame's tokens, which see themselves and `history` frames."""
    return _blocks(shape, shape.tokens, (shape.frames_in_view(history) + 1) * shape.tokens)


def _blocks(shape: Shape, queries: int, keys: int) -> Cost:
    """Cost of attention, attention to the prompt and MLP in all blocks, without adaLN."""
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
    """Cost of the prompt's keys and values for every block."""
    if not shape.text_tokens:
        return NOTHING
    d, rows = shape.d_model, shape.text_tokens
    cost = _linear(shape, rows, shape.text_width, d) + _linear(shape, rows, d, d)
    norms = shape.layers * d * shape.value_bytes
    return cost + _linear(shape, rows, d, d, 2 * shape.layers) + Cost(weight_bytes=norms)
