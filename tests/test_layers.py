"""Layers run by ranges give the network's own `denoise`, bit by bit, in every family that offers them."""

from functools import partial

import batches
import pytest
import tiny
import tiny_scd
import torch
import twins

from framelens.diffusion.contract import traits
from framelens.diffusion.guidance import guide
from framelens.diffusion.sampler import prepare_steps
from framelens.models import adapter_template
from framelens.models.variants.cut import CutModel

OURS = {
    "dense": tiny.model,
    "dense, labels, a window": lambda: tiny.model(conditions=3, window=1, sink=1),
    "dense, text": lambda: tiny.model(text_tokens=3, text_width=5),
    "adapter": adapter_template.load,
}
FAMILIES = [name for name in twins.FAMILIES if name != "scd"]
CHUNKS, BATCH = 3, 2
SIGMAS = torch.tensor([1.0, 0.7, 0.2])


@pytest.fixture(params=[*OURS, *FAMILIES])
def model(request, tmp_path):
    if request.param in OURS:
        return OURS[request.param]()
    return batches.load_twin(request.param, tmp_path)


condition = partial(batches.condition, batch=BATCH, chunks=CHUNKS)


def chunks(model):
    g = model.geometry
    shape = (BATCH, g.frames_per_chunk, g.channels, g.height, g.width)
    return [tiny.draw(*shape, seed=chunk) for chunk in range(CHUNKS)]


def by_ranges(model, x, sigma, context, *ends):
    """The velocity from layers that run up to these, one range after the other."""
    stack = traits(model).stack
    entered, first = stack.enter(x, sigma, context), 0
    for end in (*ends, model.geometry.layers):
        entered = entered._replace(tokens=stack.through(*entered, range(first, end)))
        first = end
    return stack.velocity(entered.tokens, entered.modulations)


@torch.no_grad()
def test_layers_by_ranges_are_the_whole_pass_bit_by_bit(model):
    context, depth = model.start(BATCH, condition(model)), model.geometry.layers
    for x in chunks(model):
        ways = [(SIGMAS[1:2].expand(BATCH), context)]
        prepared = prepare_steps(traits(model), SIGMAS, context)
        ways += [(sigma.expand(BATCH), own) for sigma, own in zip(SIGMAS, prepared, strict=True)]
        for sigma, own in ways:
            whole = model.denoise(x, sigma, own)
            for ends in ((), (1,), range(1, depth), (0, depth)):
                assert torch.equal(by_ranges(model, x, sigma, own, *ends), whole)
        context = model.encode(x, context)


@torch.no_grad()
def test_each_layer_counts(model):
    stack, x = traits(model).stack, chunks(model)[0]
    context = model.encode(x, model.start(BATCH, condition(model)))
    entered = stack.enter(x, SIGMAS[1:2].expand(BATCH), context)
    tokens = [stack.through(*entered, range(end)) for end in range(model.geometry.layers + 1)]
    assert torch.equal(tokens[0], entered.tokens)
    assert not any(torch.equal(a, b) for a, b in zip(tokens, tokens[1:], strict=False))


@pytest.mark.parametrize("around", [lambda m: CutModel(m, [1]), lambda m: guide(m, 2.0)])
def test_a_model_whose_denoise_is_another_does_not_offer_the_layers_of_the_one_inside(around):
    inner = tiny.model(conditions=3)
    assert traits(inner).stack is inner and traits(around(inner)).stack is None


def test_a_separated_model_offers_no_stack():
    assert traits(tiny_scd.model()).stack is None
