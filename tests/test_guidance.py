"""Guidance combines two contexts of one model, and is the model itself at scale 1."""

import pytest
import tiny
import torch
from bounds import assert_same

from framelens.diffusion.guidance import Guided, guide
from framelens.diffusion.sampler import rollout
from framelens.diffusion.schedule import sigma_grid

pytestmark = pytest.mark.usefixtures("all_float64")

CONDITIONS = 3


@pytest.fixture(scope="module")
def model():
    return tiny.model(conditions=CONDITIONS)


@pytest.fixture
def noise():
    return tiny.draw(2, 3, 3, 8, 8)


ACTIONS = torch.tensor([[0, 1, 2], [2, 0, 1]])
NULL = torch.full_like(ACTIONS, CONDITIONS)


def test_guidance_of_scale_one_is_the_model_itself(model):
    assert guide(model, 1) is model and guide(model, 1.0) is model


def test_a_model_without_conditions_cannot_be_guided():
    model = tiny.model()
    with pytest.raises(ValueError, match=r"2\.0"):
        guide(model, 2.0)
    assert guide(model, 1) is model


def test_the_velocities_are_combined_as_ho_and_salimans_do(model):
    cond, uncond = tiny.draw(4), tiny.draw(4, seed=1)
    assert_same(guide(model, 1.5).combine({"cond": cond, "uncond": uncond}), uncond + 1.5 * (cond - uncond))


def test_scale_zero_is_the_unconditional_model(model, noise):
    sampled = rollout(guide(model, 0.0), noise, sigma_grid(3), ACTIONS)
    assert torch.equal(sampled, rollout(model, noise, sigma_grid(3), NULL))
    assert not torch.equal(sampled, rollout(model, noise, sigma_grid(3), ACTIONS))


def test_the_wrapper_at_scale_one_agrees_with_the_model(model, noise):
    assert_same(
        rollout(Guided(model, 1.0), noise, sigma_grid(3), ACTIONS),
        rollout(model, noise, sigma_grid(3), ACTIONS),
    )


def test_two_encoded_branches_give_the_combined_velocity(model):
    x, past, sigma = tiny.draw(2, 1, 3, 8, 8), tiny.draw(2, 1, 3, 8, 8, seed=1), torch.full((2,), 0.7)
    wrapped = guide(model, 3.0)
    velocity = wrapped.denoise(x, sigma, wrapped.encode(past, wrapped.start(2, ACTIONS)))
    cond, uncond = (model.denoise(x, sigma, model.encode(past, model.start(2, c))) for c in (ACTIONS, NULL))
    assert torch.equal(velocity, uncond + 3.0 * (cond - uncond))


def test_labels_are_guided_like_actions(model, noise):
    labels = torch.tensor([0, 2])
    sampled = rollout(guide(model, 0.0), noise, sigma_grid(2), labels)
    assert torch.equal(sampled, rollout(model, noise, sigma_grid(2), torch.full_like(labels, CONDITIONS)))


def test_another_condition_may_stand_for_the_null(model, noise):
    sampled = rollout(guide(model, 0.0, null=1), noise, sigma_grid(2), ACTIONS)
    assert torch.equal(sampled, rollout(model, noise, sigma_grid(2), torch.ones_like(ACTIONS)))


def test_a_guided_model_shows_the_model_inside(model):
    wrapped = guide(model, 2.0)
    assert wrapped.geometry is model.geometry and wrapped.hook_dict is model.hook_dict
    assert wrapped.attn_dict == model.attn_dict


def test_guidance_without_conditions_says_what_is_missing(model, noise):
    with pytest.raises(ValueError, match="cond"):
        rollout(guide(model, 2.0), noise, sigma_grid(2))
