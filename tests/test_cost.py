"""The cost of a model from its shapes agrees with what torch counts, stores and moves."""

from dataclasses import replace

import pytest
import tiny
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from framelens.benchmarks.scd.presets import ASKS, DENSE, FETCH_ONCE, PRESETS
from framelens.models import dense, scd
from framelens.models.cost.operations import (
    Shape,
    cache_bytes,
    denoise_cost,
    encode_cost,
    frame_cost,
    kept_bytes,
    modulation_cost,
    parameters,
    predicted_speed_up,
    shape_of,
    speed_up_bound,
    start_cost,
    step_costs,
)
from framelens.models.parts.fusion import FUSIONS
from framelens.models.parts.scd_config import ASKING
from framelens.models.variants.fetch_once import fetch_once

SMALL = tiny.SHAPE | {"mlp_width": 40}
ACTIONS, TEXT, WINDOW = {"conditions": 5}, {"text_tokens": 3, "text_width": 6}, {"window": 2, "sink": 1}
KINDS = [None, *FUSIONS, "prefix, noise", "residual, noise", "prefix, frame", "add, learned"]
STEPS, BATCH, HISTORY = 3, 2, 4


def network(fusion, **changes):
    """A dense network for None, else a separated one of that fusion; and its shape."""
    if fusion is None:
        model = dense.build(dense.Config(layers=3, **SMALL, **changes))
    else:
        fusion, _, query = fusion.partition(", ")
        asked = ASKING | {"query": query, "query_layer": int(query == "learned")} if query else {}
        model = scd.build(
            scd.Config(encoder_layers=2, decoder_layers=3, fusion=fusion, **SMALL, **changes, **asked)
        )
    return model.eval().requires_grad_(False), shape_of(model.config, batch=BATCH)


def condition(model):
    if model.config.text_tokens:
        return torch.randn(BATCH, model.config.text_tokens, model.config.text_width)
    return torch.zeros(BATCH, HISTORY + 2, dtype=torch.long) if model.config.conditions else None


def counted(run):
    """What torch counts in a call, and what the call returned."""
    # torch does not count what its fused attention for CPUs does.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        value = run()
    return counter.get_total_flops(), value


def after(model, frames):
    context = model.start(BATCH, condition(model))
    for _ in range(frames):
        context = model.encode(torch.randn(BATCH, 1, 3, 8, 8), context)
    return context


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, ACTIONS, TEXT, WINDOW], ids=["plain", "actions", "text", "window"])
@pytest.mark.parametrize("fusion", KINDS)
def test_the_arithmetic_is_what_torch_counts(fusion, changes):
    model, shape = network(fusion, **changes)
    flops, _ = counted(lambda: model.start(BATCH, condition(model)))
    assert flops == start_cost(shape).flops
    context, x, sigma = after(model, HISTORY), torch.randn(BATCH, 1, 3, 8, 8), torch.rand(BATCH)
    assert counted(lambda: model.denoise(x, sigma, context))[0] == denoise_cost(shape, HISTORY).flops
    flops, steps = counted(lambda: list(model.at_steps(torch.rand(STEPS), context)))
    assert flops == modulation_cost(shape, STEPS).flops
    flops, _ = counted(lambda: model.denoise(x, sigma, steps[0]))
    assert flops == denoise_cost(shape, HISTORY, modulated=True).flops
    assert counted(lambda: model.encode(x, context))[0] == encode_cost(shape, HISTORY).flops


@pytest.mark.parametrize("changes", [{}, ACTIONS, TEXT, WINDOW], ids=["plain", "actions", "text", "window"])
@pytest.mark.parametrize("cut", [0, 2, 3])
def test_the_arithmetic_of_a_past_fetched_once_is_what_torch_counts(cut, changes):
    model, whole = network(None, **changes)
    shape, once = replace(whole, past_layers=cut), fetch_once(model, cut, merge="sum")
    context, x, sigma = after(model, HISTORY), torch.randn(BATCH, 1, 3, 8, 8), torch.rand(BATCH)
    steps = list(once.at_steps(torch.rand(STEPS), context))
    flops = [counted(lambda step=step: once.denoise(x, sigma, step))[0] for step in steps]
    (first, fetches), (later, reuses) = step_costs(shape, STEPS, HISTORY)
    own = 4 * BATCH * cut * shape.tokens**2 * shape.d_model  # the sum computes this part a second time
    assert [(flops[0] - own), *flops[1:]] == [*[fetches.flops] * first, *[reuses.flops] * later]
    assert frame_cost(shape, STEPS, HISTORY).flops < frame_cost(whole, STEPS, HISTORY).flops
    context = once.start(BATCH, condition(model))
    for _ in range(HISTORY):
        context = once.encode(x, context)
    assert counted(lambda: once.encode(x, context))[0] == encode_cost(shape, HISTORY).flops
    seen = [keys[:, :, : context.cache.tokens] for keys in context.cache.storage.keys]
    prompt = 2 * 3 * shape.text_tokens * shape.d_model * shape.value_bytes * BATCH
    held = cache_bytes(shape, HISTORY) - kept_bytes(shape) - prompt
    assert 2 * sum(keys.nbytes for keys in seen) == held


def test_a_past_fetched_once_keeps_an_output_and_a_log_normaliser_for_each_query():
    model, whole = network(None)
    once = fetch_once(model, 2)
    first, *_ = once.at_steps(torch.rand(STEPS), after(model, HISTORY))
    once.denoise(torch.randn(BATCH, 1, 3, 8, 8), torch.rand(BATCH), first)
    held = sum(tensor.nbytes for kept in first.kept.values() for tensor in kept)
    assert kept_bytes(replace(whole, past_layers=2)) == held and kept_bytes(whole) == 0


def test_a_past_fetched_once_saves_what_the_documents_say():
    """TECO-Minecraft and Wan 1.3B; docs/separating.md."""
    for name, history, frame, steps in (("minecraft", 222, 3.00, 3.14), ("wan-1.3b", 20, 1.67, 2.00)):
        preset = PRESETS[name]
        shapes = [preset.shape(arm) for arm in (DENSE, FETCH_ONCE)]
        assert round(predicted_speed_up(*shapes, preset.steps, history), 2) == frame
        passes = [
            sum(count * cost.flops for count, cost in step_costs(shape, preset.steps, history))
            for shape in shapes
        ]
        assert round(passes[0] / passes[1], 2) == steps


def test_asking_costs_what_the_documents_say():
    """Shares of a frame by operations, and the speed-up over dense; docs/separating.md."""
    for name, layer, histories, share in (
        ("small", 0, [64], 0.140), ("small", 0, [8], 0.087), ("small", 4, [64], 0.070),
        ("minecraft", 0, range(144, 300), 0.093), ("minecraft", 4, range(144, 300), 0.044),
    ):  # fmt: skip
        preset = PRESETS[name]
        asking = replace(preset.shape(ASKS), query_layer=layer)
        flops = [
            sum(frame_cost(shape, preset.steps, history).flops for history in histories)
            for shape in (preset.shape("prefix"), asking)
        ]
        assert round(1 - flops[0] / flops[1], 3) == share
    ups = [predicted_speed_up(preset.shape(DENSE), preset.shape(ASKS), preset.steps, h) for h in histories]
    assert round(sum(ups) / len(ups), 2) == 7.77


@pytest.mark.parametrize("changes", [{}, ACTIONS, TEXT], ids=["plain", "actions", "text"])
@pytest.mark.parametrize("fusion", KINDS)
def test_every_weight_is_counted(fusion, changes):
    model, shape = network(fusion, **changes)
    assert parameters(shape) == sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("fusion", KINDS)
def test_a_step_reads_the_weights_of_its_stack(fusion):
    model, shape = network(fusion)
    stack = [*model.decoder.parameters(), *model.join.parameters()] if fusion else list(model.parameters())
    assert denoise_cost(shape, 0).weight_bytes == sum(weight.nbytes for weight in stack)


@pytest.mark.parametrize("changes", [{}, TEXT, WINDOW], ids=["plain", "text", "window"])
@pytest.mark.parametrize("fusion", KINDS)
@pytest.mark.parametrize("history", [1, HISTORY])
def test_the_cache_holds_what_was_foreseen(fusion, changes, history):
    model, shape = network(fusion, **changes)
    context = after(model, history)
    caches = [context.cache, *([context.prefix] if shape.fusion == "prefix" else [])]
    held = [layer[:, :, : c.tokens] for c in caches for layer in c.storage.keys + c.storage.values]
    texts = [context.text] if fusion is None else [context.encoder_text, context.decoder_text]
    held += [tensor for text in texts for pair in text or [] for tensor in pair]
    assert cache_bytes(shape, history) == sum(tensor.numel() * tensor.element_size() for tensor in held)


def test_a_frame_is_its_passes_in_every_branch():
    _, shape = network("prefix", **ACTIONS)
    step = denoise_cost(shape, 4, modulated=True)
    passes = step * 5 + modulation_cost(shape, 5) + encode_cost(shape, 4)
    assert frame_cost(replace(shape, branches=2), 5, 4) == passes * 2


def test_the_speed_up_grows_with_steps_towards_its_bound():
    dense_shape, scd_shape = network(None)[1], network("token_concat")[1]
    ups = [predicted_speed_up(dense_shape, scd_shape, steps, 50) for steps in (1, 10, 100, 100_000)]
    bound = speed_up_bound(dense_shape, scd_shape, 50)
    assert ups == sorted(ups) and ups[-1] < bound
    assert ups[-1] == pytest.approx(bound, rel=1e-3)


def test_a_shape_needs_no_network():
    shape = Shape(layers=1, d_model=8, heads=2, mlp_width=32, tokens=4, values=3)
    assert denoise_cost(shape, 0).flops > 0 and parameters(shape) > 0
