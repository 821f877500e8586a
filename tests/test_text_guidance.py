"""Guidance of networks that read a prompt: the negative branch reads the empty one, embeddings of zeros."""

import pytest
import tiny
import torch
from bounds import assert_same

from framelens.diffusion.guidance import guide
from framelens.diffusion.sampler import rollout
from framelens.diffusion.schedule import sigma_grid
from framelens.models import dense, scd

pytestmark = pytest.mark.usefixtures("all_float64")

TEXT = {"text_tokens": 5, "text_width": 6}
PROMPT = tiny.draw(2, 5, 6, seed=3)
NOISE = tiny.draw(2, 3, 3, 8, 8)


def separated(**changes):
    """An SCD none of whose weights is zero."""
    values = {k: v for k, v in tiny.config(**changes).values().items() if k != "layers"}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network = scd.build(scd.Config(**values, encoder_layers=1, decoder_layers=1))
        for weight in network.parameters():
            weight += 0.3 * torch.randn(weight.shape)
    return network.eval().requires_grad_(False)


@pytest.fixture(params=[tiny.model, separated])
def build(request):
    return request.param


def test_a_network_says_what_it_takes(build):
    assert build().takes is None and build().null_condition is None
    assert build(conditions=3).takes == "actions" and build(conditions=3).null_condition == 3
    assert build(**TEXT).takes == "text" and torch.equal(build(**TEXT).null_condition, torch.zeros(5, 6))
    assert not build().latent


@pytest.mark.parametrize("scale", [0.0, 1.5])
def test_guidance_by_text_combines_the_prompt_and_the_empty_prompt(build, scale):
    model, sigma = build(**TEXT), torch.full((2,), 0.7)
    x = NOISE[:, :1]
    velocities = {
        name: model.denoise(x, sigma, model.start(2, prompt))
        for name, prompt in {"cond": PROMPT, "uncond": torch.zeros_like(PROMPT)}.items()
    }
    assert not torch.allclose(*velocities.values())
    wrapper = guide(model, scale)
    expected = velocities["uncond"] + scale * (velocities["cond"] - velocities["uncond"])
    assert_same(wrapper.denoise(x, sigma, wrapper.start(2, PROMPT)), expected)


def test_a_rollout_guided_by_text_moves_away_from_the_empty_prompt(build):
    model, empty = build(**TEXT), torch.zeros_like(PROMPT)
    nothing, prompt = (rollout(model, NOISE, sigma_grid(2), cond) for cond in (empty, PROMPT))
    assert_same(rollout(guide(model, 0.0), NOISE, sigma_grid(2), PROMPT), nothing)
    stronger = rollout(guide(model, 2.0), NOISE, sigma_grid(2), PROMPT)
    assert not torch.allclose(stronger, prompt) and not torch.allclose(stronger, nothing)


def test_a_prompt_reaches_whole_clips_at_once_too(build):
    model, sigma = build(**TEXT), torch.full((2, 3), 0.7)
    clean = tiny.draw(2, 3, 3, 8, 8, seed=1)
    empty = model.teacher_forced(clean, NOISE, sigma, torch.zeros_like(PROMPT))
    assert not torch.allclose(model.teacher_forced(clean, NOISE, sigma, PROMPT), empty)


def test_guidance_leads_away_from_a_negative_prompt_that_is_given():
    model, negative = tiny.model(**TEXT), tiny.draw(5, 6, seed=4)
    sampled = rollout(guide(model, 0.0, null=negative), NOISE, sigma_grid(2), PROMPT)
    of_negative = rollout(model, NOISE, sigma_grid(2), negative.expand(2, -1, -1))
    assert_same(sampled, of_negative)
    assert not torch.allclose(sampled, rollout(guide(model, 0.0), NOISE, sigma_grid(2), PROMPT))


def test_the_negative_context_of_a_separated_network_keeps_the_prompt():
    model = separated(**TEXT)
    context = rollout(guide(model, 1.5, negative="context"), NOISE, sigma_grid(2), PROMPT)
    assert not torch.allclose(context, rollout(model, NOISE, sigma_grid(2), PROMPT))


def test_the_network_is_still_its_configuration():
    assert dense.build(tiny.config(**TEXT).values()).takes == "text"
