"""Layers cut off from the past in training do what a cut of the sampler's passes does."""

import pytest
import tiny
import torch
from bounds import assert_same

from framelens.diffusion.sampler import ForwardPass, rollout
from framelens.diffusion.schedule import sigma_grid
from framelens.hooks import cut
from framelens.models.variants.cut import CutModel, cut_teacher_forced, layers_from

pytestmark = pytest.mark.usefixtures("all_float64")

FRAMES = 4


def cut_frame_by_frame(model, layers, clean, noisy, sigma):
    context, velocities = model.start(2), []
    for frame in range(FRAMES):
        span = slice(frame, frame + 1)
        with cut(model.attn_dict, [f"blocks.{layer}.attn" for layer in layers]) as edit:
            edit.on_pass(ForwardPass(frame, 0, 0.5, "denoise"))
            velocities.append(model.denoise(noisy[:, span], sigma[:, frame], context))
        context = model.encode(clean[:, span], context)
    return torch.cat(velocities, dim=1)


@pytest.mark.parametrize("layers", [[1], [1, 2], [0, 1, 2]])
def test_a_cut_in_training_is_the_cut_of_denoising_passes(layers):
    model, clean, noisy = (
        tiny.model(layers=3),
        tiny.draw(2, FRAMES, 3, 8, 8),
        tiny.draw(2, FRAMES, 3, 8, 8, seed=1),
    )
    sigma = 0.05 + 0.9 * torch.rand(2, FRAMES, generator=torch.Generator().manual_seed(0))
    with cut_teacher_forced(model, layers):
        together = model.teacher_forced(clean, noisy, sigma)
    expected = cut_frame_by_frame(model, layers, clean, noisy, sigma)
    assert_same(together, expected)
    whole = model.teacher_forced(clean, noisy, sigma)
    assert not torch.allclose(whole, together, atol=1e-4), "the cut is gone afterwards, and was there before"


@pytest.mark.parametrize("first", [1, 0])
def test_sampling_from_a_cut_model_is_the_cut_of_denoising_passes(first):
    model, clip, noise = (
        tiny.model(layers=3),
        tiny.draw(2, FRAMES, 3, 8, 8),
        tiny.draw(2, FRAMES, 3, 8, 8, seed=1),
    )
    layers = layers_from(model, first)

    def sampled(sampler, on_pass=lambda at: None):
        return rollout(sampler, noise, sigma_grid(2), None, clip, teacher_forced=True, on_pass=on_pass)

    with cut(model.attn_dict, [f"blocks.{layer}.attn" for layer in layers]) as edit:
        expected = sampled(model, edit.on_pass)
    assert_same(sampled(CutModel(model, layers)), expected)
    assert not torch.allclose(sampled(model), expected, atol=1e-3), "the cut changes nothing, or stays"
    assert torch.equal(sampled(CutModel(model, [])), sampled(model))


def test_a_cut_network_can_be_trained():
    model = tiny.model(layers=2).requires_grad_(True)
    clean, noisy = tiny.draw(1, 3, 3, 8, 8), tiny.draw(1, 3, 3, 8, 8, seed=1)
    with cut_teacher_forced(model, [0, 1]):
        model.teacher_forced(clean, noisy, torch.full((1, 3), 0.5)).square().mean().backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_layers_that_are_not_there_are_refused():
    with (
        pytest.raises(ValueError, match=r"\b0 .*\b1\b.*\[1, 2\]"),
        cut_teacher_forced(tiny.model(), [2, 1]),
    ):
        pass
