"""A machine's rates, measured in a few seconds with blocks of a model's shapes.

    machine = calibrate("cpu", "float32", shape_of(config))
    machine.frame_seconds(shape_of(config), steps=50, history=16)

The timed network is dense and has that width, those heads and tokens, but fewer layers. On a CPU its sizes
are also limited to values above which rates no longer change.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from framelens.models import dense
from framelens.models.cost.machine import Machine
from framelens.models.cost.operations import VALUE_BYTES, Shape, cache_bytes, denoise_cost
from framelens.models.parts.cache import KVCache, KVStorage

ROUNDS, FEWEST, LONGEST_SECONDS = 100, 3, 1.5
"""Most rounds of all timings; after LONGEST_SECONDS, FEWEST rounds are enough."""
COPIED_BYTES = {"cpu": 2**25, "cuda": 2**30}
ROWS = 2**14
"""Least tokens of all clips on a GPU; with fewer, launches would be timed and not work."""
MOST = {"tokens": 256, "rows": 1024, "d_model": 1024}
"""Largest sizes on a CPU."""
LAYERS = 4
FLOPS = 2e9
"""Most operations of the blocks on a CPU, unless one block has more."""
PAST_BYTES = 1e9
"""Most bytes of the history over which attention is timed."""

Run = Callable[[], object]


@torch.inference_mode()
def calibrate(device: str, dtype: str, shape: Shape) -> Machine:
    """Rates on that device, from passes over one token, over a frame, and over a frame with a long past.

    The time of a frame minus that of a token belongs to linear layers and element-wise work; the additional
    time with a past belongs to attention. Raises torch.OutOfMemoryError.
    """
    on_gpu = device.startswith("cuda")
    frame = _timed_shape(replace(shape, value_bytes=VALUE_BYTES[dtype]), on_gpu)
    token, past = replace(frame, tokens=1, batch=1), _frames(frame)
    source = torch.zeros(COPIED_BYTES["cuda" if on_gpu else "cpu"], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        network = _network(frame, device, dtype)
        runs = {
            "copy": lambda: target.copy_(source),
            "token": _pass(_network(token, device, dtype), token, 0),
            "frame": _pass(network, frame, 0),
            "past": _pass(network, frame, past),
        }
    taken = _seconds(runs, device)
    least, own, far = (
        denoise_cost(shape, history, modulated=True)
        for shape, history in ((token, 0), (frame, 0), (frame, past))
    )
    copied = 2 * source.nbytes / taken["copy"]
    attending = taken["past"] - taken["frame"]
    attention = _rate(far.attention_flops - own.attention_flops, attending, far.state_bytes / copied)
    if on_gpu:  # enough tokens to hide the launches
        linear = _rate(own.linear_flops, taken["frame"] - own.attention_flops / attention, own.bytes / copied)
        return Machine(linear, attention, copied, taken["token"] / least.blocks, hides_launches=True)
    working = taken["frame"] - taken["token"] - (own.attention_flops - least.attention_flops) / attention
    linear = _rate(own.linear_flops - least.linear_flops, working, own.state_bytes / copied)
    launching = taken["token"] - least.linear_flops / linear - least.attention_flops / attention
    return Machine(linear, attention, copied, max(launching, 0) / least.blocks, hides_launches=False)


def _rate(count: int, seconds: float, least_seconds: float) -> float:
    """Count per second; `seconds`, a difference of timings, is at least the time to read the operands."""
    return count / max(seconds, least_seconds)


def synchronise(device: str) -> None:
    """Waits until a GPU has finished its work; does nothing for a CPU."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _timed_shape(shape: Shape, on_gpu: bool) -> Shape:
    """A dense shape with the same blocks, large enough to keep the device busy, timed within seconds."""
    shape = Shape(
        LAYERS, shape.d_model, shape.heads, shape.mlp_width, shape.tokens, shape.values,
        text_tokens=shape.text_tokens, text_width=min(shape.text_width, 8),
        batch=shape.batch, value_bytes=shape.value_bytes,
    )  # fmt: skip
    if on_gpu:
        return replace(shape, batch=max(shape.batch, ROWS // shape.tokens))
    head, tokens = shape.d_model // shape.heads, min(shape.tokens, MOST["tokens"])
    heads = max(1, min(shape.heads, MOST["d_model"] // head))
    shape = replace(
        shape, heads=heads, d_model=heads * head, mlp_width=shape.mlp_width * heads // shape.heads,
        tokens=tokens, batch=max(1, min(shape.batch, MOST["rows"] // tokens)),
    )  # fmt: skip
    each = denoise_cost(shape, 0, modulated=True).flops / LAYERS
    return replace(shape, layers=max(1, min(LAYERS, int(FLOPS // each))))


def _frames(shape: Shape) -> int:
    """Frames of history with which attention needs as many operations as the linear layers."""
    near, far = (denoise_cost(shape, history, modulated=True) for history in (0, 1))
    wanted = near.linear_flops // (far.attention_flops - near.attention_flops)
    return max(1, min(wanted, int(PAST_BYTES // cache_bytes(shape, 1))))


def _network(shape: Shape, device: str, dtype: str) -> dense.Dense:
    head = shape.d_model // shape.heads
    turned = head // 6 * 2
    config = dense.Config(
        layers=shape.layers, channels=shape.values, height=1, width=shape.tokens, patch=1,
        heads=shape.heads, d_model=shape.d_model, mlp_width=shape.mlp_width,
        text_tokens=shape.text_tokens, text_width=shape.text_width,
        rope_axes=(head - 2 * turned, turned, turned),
    )  # fmt: skip
    with torch.device(device):
        network = dense.build(config)
    return network.to(device=device, dtype=getattr(torch, dtype)).eval()


def _pass(network: dense.Dense, shape: Shape, frames: int) -> Run:
    """A denoising step after that many frames, with prepared modulation."""
    device, rows = network.device, shape.batch
    cond = torch.zeros(rows, shape.text_tokens, shape.text_width) if shape.text_tokens else None
    x = torch.randn(rows, 1, shape.values, 1, shape.tokens, device=device)
    context = replace(network.start(rows, cond), cache=_past(network, shape, frames))
    sigma = torch.ones(rows, device=device)
    (context,) = network.at_steps(sigma[:1], context)
    return lambda: network.denoise(x, sigma, context)


def _past(network: dense.Dense, shape: Shape, frames: int) -> KVCache:
    """Keys and values of that many frames, with room for one more."""
    tokens, head = frames * shape.tokens, shape.d_model // shape.heads
    size = (shape.batch, shape.heads, tokens + shape.tokens, head)
    keys, values = (
        [torch.randn(size, device=network.device, dtype=network.dtype) for _ in range(shape.layers)]
        for _ in range(2)
    )
    return KVCache(KVStorage(shape.layers, tokens, keys=keys, values=values), tokens)


def _seconds(runs: Mapping[str, Run], device: str) -> dict[str, float]:
    """The 10 % quantile of each run's times, since other processes only add time.

    The runs take turns, so that each one has its share of the moments when the machine is idle.
    """
    taken: dict[str, list[float]] = {name: [] for name in runs}
    began, clock = time.perf_counter(), _clock(device)
    for turn in range(1 + ROUNDS):
        if turn > FEWEST and time.perf_counter() - began > LONGEST_SECONDS:
            break
        for name, run in runs.items():
            synchronise(device)
            start = clock()
            run()
            synchronise(device)
            taken[name].append(clock() - start)
    return {name: sorted(seconds[1:])[len(seconds[1:]) // 10] for name, seconds in taken.items()}


def _clock(device: str) -> Callable[[], float]:
    """A clock: CPU time of the thread if it is alone, which other processes disturb less; else wall time."""
    is_alone = not device.startswith("cuda") and torch.get_num_threads() == 1
    return time.thread_time if is_alone else time.perf_counter
