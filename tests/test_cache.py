"""A cache as TransformerLens users expect it, of any model with a hook_dict; each value has its moment."""

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from framelens import models
from framelens.diffusion.sampler import rollout
from framelens.diffusion.schedule import sigma_grid
from framelens.hooks import Cache, SilentHookError, record, run_with_cache
from framelens.hooks.cache import Entry
from framelens.models import scd

FRAMES, TOKENS = 3, 4
SIGMA = torch.tensor([0.5, 0.8])


@pytest.fixture(scope="module")
def model():
    return tiny.model()


@pytest.fixture(scope="module")
def foreign():
    """A model that is not a HookedRootModule."""
    return models.load("models/adapter_template.py:load")


def x(seed=0):
    return tiny.draw(2, 1, 3, 8, 8, seed=seed)


@pytest.fixture(scope="module")
def recorded(model):
    noise = tiny.draw(1, FRAMES, 3, 8, 8)
    with record(model, ["*.hook_resid_post", "blocks.*.attn.hook_q"]) as cache:
        video = rollout(model, noise, sigma_grid(2), on_pass=cache.on_pass)
    assert torch.equal(video, rollout(model, noise, sigma_grid(2)))
    return cache


def test_one_pass_gives_what_transformer_lens_gives(model):
    context = model.start(2)
    velocity, cache = run_with_cache(model, x(), SIGMA, context, "*")
    expected, theirs = model.run_with_cache(x(), SIGMA, context)
    assert torch.equal(velocity, expected) and set(cache) == set(theirs)
    assert all(torch.equal(value, theirs[name]) for name, value in cache.items())


def test_short_forms_are_those_of_transformer_lens(model):
    _, cache = run_with_cache(model, x(), SIGMA, model.start(2))
    assert cache["resid_post", 1] is cache["blocks.1.hook_resid_post"] is cache["resid_post", -1]
    assert cache["q", 0] is cache["blocks.0.attn.hook_q"] is cache["q", 0, "attn"]
    assert cache["embed"] is cache["hook_embed"] is cache["resid_pre", 0] or torch.equal(
        cache["embed"], cache["resid_pre", 0]
    )
    stacked = cache.stack_activation("resid_post")
    assert stacked.shape == (2, 2, TOKENS, 16) and torch.equal(stacked[1], cache["resid_post", 1])


@pytest.mark.parametrize(
    "name, full",
    [
        ("embed", "hook_embed"),
        ("hook_embed", "hook_embed"),
        (("resid_post", 0), "blocks.0.hook_resid_post"),
        (("resid_post", -1), "blocks.1.hook_resid_post"),
        (("q", np.int64(1)), "blocks.1.attn.hook_q"),
        (("q", 1, "attn"), "blocks.1.attn.hook_q"),
        (("q", 1, None), "blocks.1.attn.hook_q"),
        ("resid_post", None),
        ("pattern", None),
        (("resid_post", 2), None),
        (("resid_post", -3), None),
        (("q", 1, "decoder"), None),
        (("q",), None),
        (("q", "1"), None),
        (3, None),
        (None, None),
    ],
)
def test_in_and_get_and_the_brackets_agree(model, name, full):
    _, cache = run_with_cache(model, x(), SIGMA, model.start(2))
    assert (name in cache) == (full is not None)
    if full is None:
        assert cache.get(name) is None
        with pytest.raises(KeyError):
            cache[name]
    else:
        assert cache[name] is cache.get(name) is cache[full]


def test_several_moments_are_in_the_cache(recorded):
    assert "blocks.0.hook_resid_post" in recorded and ("resid_post", 1) in recorded


def test_maps_of_queries_by_keys_are_recorded_only_by_name(model):
    context = model.encode(x(1), model.start(2))
    with record(model) as cache, torch.no_grad():
        model.denoise(x(), SIGMA, context)
    assert len(cache) == 23 and "blocks.0.attn.hook_pattern" not in cache
    _, named = run_with_cache(model, x(), SIGMA, context, ["blocks.*.attn.hook_pattern", "hook_embed"])
    assert named["pattern", 1].shape == (2, 2, TOKENS, 2 * TOKENS) and len(named) == 3


def test_neither_velocity_nor_cache_keeps_gradients(model):
    _, cache = run_with_cache(model, x().requires_grad_(), SIGMA, model.start(2))
    assert not any(value.requires_grad for value in cache.values())


def test_a_model_of_somebody_elses_is_recorded_by_the_same_names(foreign):
    frame, actions = tiny.draw(2, 1, 3, 20, 20), torch.zeros(2, 1, dtype=torch.long)
    velocity, cache = run_with_cache(foreign, frame, SIGMA, foreign.start(2, actions), "*.hook_resid_post")
    assert torch.equal(velocity, foreign.denoise(frame, SIGMA, foreign.start(2, actions)))
    assert list(cache) == [f"blocks.{layer}.hook_resid_post" for layer in range(4)]
    assert cache.stack_activation("resid_post").shape == (4, 2, 25, 64)


def test_two_stacks_are_told_apart_by_a_third_word():
    config = tiny.SHAPE | {"encoder_layers": 2, "decoder_layers": 1}
    network = scd.build(scd.Config(**config)).eval().requires_grad_(False)
    with record(network, "*.hook_resid_post") as cache:
        rollout(network, tiny.draw(1, 2, 3, 8, 8), sigma_grid(1), on_pass=cache.on_pass)
    encode = cache.at(role="encode", frame=0)
    with pytest.raises(ValueError, match=r"encoder.blocks.0.*decoder.blocks.0.*'encoder'\)"):
        encode["resid_post", 0]
    assert encode["resid_post", 0, "encoder"] is encode["encoder.blocks.0.hook_resid_post"]
    assert encode.stack_activation("resid_post", "encoder").shape == (2, 1, TOKENS, 16)


def test_values_are_copies_and_keep_their_moment(recorded):
    assert len(recorded.moments) == FRAMES * 2 + FRAMES - 1 and len(recorded) == 4
    first, second = (recorded.at(frame=1, step=step, role="denoise") for step in (0, 1))
    assert not torch.equal(first["resid_post", 0], second["resid_post", 0])
    assert first.moments[0].sigma == 1.0 and first.moments[0].branch == "cond"
    (moment,) = recorded.at(frame=0, role="encode").moments
    assert (moment.frame, moment.role) == (0, "encode")


def test_a_value_that_is_changed_later_is_not_the_recorded_one():
    class Careless(nn.Module):
        def __init__(self):
            super().__init__()
            self.hook_embed = nn.Identity()
            self.hook_dict = {"hook_embed": self.hook_embed}

        def denoise(self, x, sigma, context):
            return self.hook_embed(x.clone()).mul_(0)

    _, cache = run_with_cache(Careless(), x(), SIGMA, None)
    assert torch.equal(cache["hook_embed"], x())


def test_several_moments_ask_for_one(recorded):
    with pytest.raises(ValueError, match="'blocks.0.hook_resid_post'.* 8 "):
        recorded["blocks.0.hook_resid_post"]
    with pytest.raises(ValueError, match=r"cache.at\(frame=, step=, role=, branch=\).*Forward.* 4 "):
        recorded["resid_post", 0]
    with pytest.raises(ValueError, match="{'frame': 9}.*ForwardPass"):
        recorded.at(frame=9)
    with pytest.raises(ValueError, match="{'clip': 0}"):
        recorded.at(clip=0)


def test_what_was_not_recorded_is_a_key_error_with_what_was(recorded):
    one = recorded.at(frame=2, step=0)
    with pytest.raises(KeyError, match="'blocks.7.hook_z'.*blocks.0.attn.hook_q"):
        one["blocks.7.hook_z"]
    with pytest.raises(KeyError, match=r"\('resid_post', 5\)"):
        one["resid_post", 5]
    with pytest.raises(KeyError, match="'z'"):
        one.stack_activation("z")
    assert "blocks.0.hook_resid_post" in one and "resid_post" not in one and one.get("nothing") is None


@pytest.mark.parametrize(
    ("names_filter", "count"),
    [
        (None, 23),
        ("*", 25),
        ("blocks.0.attn.hook_pattern", 1),
        ("hook_embed", 1),
        ("*.hook_z", 2),
        (["hook_embed", "*.hook_z"], 3),
        (lambda n: "mlp" in n, 2),
    ],
)
def test_names_are_filtered_as_in_transformer_lens(model, names_filter, count):
    _, cache = run_with_cache(model, x(), SIGMA, model.start(2), names_filter)
    assert len(cache) == count == len(cache.keys())


@pytest.mark.parametrize("names_filter", ["*.hook_nothing", ["hook_embed", "nothing"], lambda name: False])
def test_a_filter_that_matches_nothing_is_refused(model, names_filter):
    with pytest.raises(ValueError, match="hook_embed"), record(model, names_filter):
        pass
    with pytest.raises(ValueError, match="hook_embed"):
        model.run_with_cache(x(), SIGMA, model.start(2), names_filter=names_filter)


@pytest.mark.usefixtures("float64")
def test_the_method_and_the_function_give_one_kind_of_cache():
    """In float64, for which passes with and without gradients run the same operations."""
    model = tiny.model()
    names = "blocks.*.hook_resid_post"
    _, ours = run_with_cache(model, x(), SIGMA, model.start(2), names)
    noisy = x().requires_grad_()
    velocity, theirs = model.run_with_cache(noisy, SIGMA, model.start(2), names_filter=names)
    assert list(theirs) == list(ours)
    assert torch.equal(theirs.stack_activation("resid_post"), ours.stack_activation("resid_post"))
    velocity.sum().backward()
    assert noisy.grad is not None
    _, single = model.run_with_cache(x()[:1], SIGMA[:1], model.start(1), remove_batch_dim=True)
    assert single["resid_post", 0].shape == (TOKENS, 16)


def test_it_moves_and_leaves_nothing_behind(model):
    _, cache = run_with_cache(model, x(), SIGMA, model.start(2))
    moved = cache.to("meta")
    assert moved["resid_post", 0].is_meta and not cache["resid_post", 0].is_meta
    assert not any(module._forward_hooks for module in model.modules())
    recording = record(model)
    with recording:
        pass
    with pytest.raises(ValueError):
        recording.on_pass(None)


def test_the_law_of_firing_holds(model):
    with pytest.raises(SilentHookError, match="hook_embed.* 1 "):
        with record(model, "hook_embed") as cache:
            cache.on_pass("a pass that never comes")


def test_a_point_that_fires_twice_in_a_pass_is_no_two_moments():
    cache = Cache([Entry(None, "hook_embed", torch.zeros(1))] * 2)
    with pytest.raises(ValueError, match="'hook_embed'.* 2 "):
        cache["hook_embed"]
    assert repr(cache).startswith("Cache") and repr(cache).count("1") == 2
