"""The past fetched once per frame: exact where it is fetched, reused where it is not, and nothing leaks."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import batches
import pytest
import tiny
import tiny_scd
import torch
import twins
from bounds import assert_same

import framelens
from framelens.diffusion.contract import CausalDiffuser, traits
from framelens.diffusion.guidance import guide
from framelens.diffusion.sampler import prepare_steps, rollout
from framelens.diffusion.schedule import sigma_grid
from framelens.hooks import AttentionTap, Trace, cut
from framelens.models import adapter_template
from framelens.models.variants.cut import CutModel
from framelens.models.variants.fetch_once import fetch_once
from framelens.records.plan import Plan

pytestmark = pytest.mark.usefixtures("all_float64")

ROOT = Path(__file__).parents[1]
FRAMES, BATCH, STEPS = 4, 2, 5
OURS = batches.ours(layers=3)
FAMILIES = [name for name in twins.FAMILIES if name != "scd"]
MERGES = ("softmax", "sum")


@pytest.fixture(params=[*OURS, *FAMILIES])
def model(request, tmp_path):
    if request.param in OURS:
        return OURS[request.param]()
    return batches.load_twin(request.param, tmp_path).double()


condition = partial(batches.condition, batch=BATCH, chunks=FRAMES)


def clip(model, seed=0):
    return batches.clip(model, BATCH, FRAMES, seed)


def after(model, seen):
    return batches.after(model, BATCH, FRAMES, seen)


def sampled(model, steps=STEPS, given=None, on_pass=lambda at: None):
    noise, cond = clip(model, 1), condition(model)
    options = {} if given is None else {"given": given, "teacher_forced": True}
    return rollout(model, noise, sigma_grid(steps), cond, on_pass=on_pass, **options)


def each_step(model, context, steps=STEPS):
    """The velocity of every step of one frame, at the same noisy frame."""
    x, sigmas = clip(model, 1)[:, : model.geometry.frames_per_chunk], sigma_grid(steps)[:-1]
    contexts = prepare_steps(traits(model), sigmas, context)
    return [model.denoise(x, sigma.expand(BATCH), own) for sigma, own in zip(sigmas, contexts, strict=True)]


# What equals the network


def test_with_one_step_it_is_the_network_bit_by_bit(model):
    assert isinstance(fetch_once(model), CausalDiffuser)
    assert torch.equal(sampled(fetch_once(model), steps=1), sampled(model, steps=1))


@pytest.mark.parametrize("options", [{"refresh": 1}, {"refresh_from": 1.0}])
def test_refreshed_at_every_step_it_is_the_network_bit_by_bit(model, options):
    assert torch.equal(sampled(fetch_once(model, **options)), sampled(model))


def test_a_pass_that_no_sampler_prepared_is_the_networks(model):
    once, context = fetch_once(model), after(model, 2)
    x, sigma = clip(model, 1)[:, : model.geometry.frames_per_chunk], torch.full((BATCH,), 0.5)
    assert torch.equal(once.denoise(x, sigma, context), model.denoise(x, sigma, context))


@pytest.mark.parametrize("merge", MERGES)
def test_a_step_that_fetches_is_the_network_to_rounding_and_later_ones_are_not(model, merge):
    context = after(model, 2)
    plain, parts = each_step(model, context), each_step(fetch_once(model, merge=merge), context)
    assert_same(parts[0], plain[0])
    assert all(not torch.allclose(a, b, atol=1e-7) for a, b in zip(parts[1:], plain[1:], strict=True))


@pytest.mark.parametrize("merge", MERGES)
def test_a_second_step_at_the_same_noise_level_is_the_first_one_again(model, merge):
    """Only the past's part is kept: with equal inputs it is the same, and so is the velocity."""
    once, context = fetch_once(model, merge=merge), after(model, 2)
    x, sigma = clip(model, 1)[:, : model.geometry.frames_per_chunk], torch.full((BATCH,), 0.5)
    first, second, _ = once.at_steps(torch.full((3,), 0.5), context)
    fetched = once.denoise(x, sigma, first)
    assert_same(once.denoise(x, sigma, second), fetched)


def test_the_first_frame_has_no_past_and_is_the_networks(model):
    context = model.start(BATCH, condition(model))
    for a, b in zip(each_step(fetch_once(model), context), each_step(model, context), strict=True):
        assert_same(a, b)


# The cut


def test_a_cut_at_the_first_layer_is_the_network_without_a_past(model):
    clean = clip(model)
    with cut(model.attn_dict) as edit:
        expected = sampled(model, given=clean, on_pass=edit.on_pass)
    assert_same(sampled(fetch_once(model, 0), given=clean), expected)


def test_a_cut_refreshed_at_every_step_is_the_networks_cut(model):
    clean, first = clip(model), model.geometry.layers - 1
    names = list(model.attn_dict)[first:]
    with cut(model.attn_dict, names) as edit:
        expected = sampled(model, given=clean, on_pass=edit.on_pass)
    assert_same(sampled(fetch_once(model, first, refresh=1), given=clean), expected)


def test_layers_after_the_cut_never_read_the_past():
    """A past that is not a number shows who reads it."""
    model = tiny.model(layers=3)
    context = after(model, 2)
    for layer in (1, 2):
        context.cache.storage.values[layer].fill_(float("nan"))
    assert all(v.isfinite().all() for v in each_step(fetch_once(model, 1), context))
    assert not any(v.isfinite().all() for v in each_step(fetch_once(model, 2), context))


def test_steps_that_reuse_do_not_read_the_past():
    model = tiny.model(layers=3)
    once, context = fetch_once(model), after(model, 2)
    x, sigma = clip(model, 1)[:, :1], torch.full((BATCH,), 0.5)
    first, second, third = once.at_steps(torch.tensor([1.0, 0.5, 0.5]), context)
    once.denoise(x, sigma, first)
    expected = once.denoise(x, sigma, second)
    for tensor in (*context.cache.storage.keys, *context.cache.storage.values):
        tensor.fill_(float("nan"))
    assert torch.equal(once.denoise(x, sigma, third), once.denoise(x, sigma, second))
    assert torch.equal(once.denoise(x, sigma, third), expected)


def test_finished_frames_run_the_layers_before_the_cut_alone_and_no_frame_changes(model):
    depth, ran = model.geometry.layers, []
    for layer, block in enumerate(model.blocks):
        block.register_forward_hook(lambda *_, layer=layer: ran.append(layer))
    for first in range(depth + 1):
        once, whole = fetch_once(model, first), after(model, 3)
        ran.clear()
        context = after(once, 3)
        assert ran == [*range(first)] * 3
        pairs = zip(each_step(once, context), each_step(once, whole), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


# Refreshing


def test_steps_refresh_as_asked():
    model, sigmas = tiny.model(), sigma_grid(6)[:-1]
    roles = lambda **options: [s.role for s in fetch_once(model, **options).at_steps(sigmas, model.start(1))]  # noqa: E731
    assert roles() == ["fetch", *["reuse"] * 5]
    assert roles(refresh=2) == ["fetch", "reuse"] * 3
    assert roles(refresh=5) == ["fetch", *["reuse"] * 4, "whole"]
    assert roles(refresh=1) == ["whole"] * 6
    assert roles(refresh_from=float(sigmas[4])) == ["fetch", *["reuse"] * 3, "whole", "whole"]


def test_steps_that_refresh_are_the_networks_and_the_others_are_not(model):
    context, once = after(model, 2), fetch_once(model, refresh=2)
    pairs = zip(each_step(once, context), each_step(model, context), strict=True)
    assert [torch.allclose(a, b, rtol=1e-9, atol=1e-9) for a, b in pairs] == [True, False] * 2 + [True]


# Contexts are values


def test_the_same_context_gives_the_same_frame_again(model):
    once, context = fetch_once(model), after(model, 2)
    first = each_step(once, context)
    each_step(once, after(model, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, each_step(once, context), strict=True))


def test_two_frames_at_a_time_do_not_share_what_they_fetched():
    model = tiny.model(conditions=3)
    once, x = fetch_once(model), clip(model, 1)[:, :1]
    sigmas, contexts = sigma_grid(3)[:-1], (after(model, 1), after(model, 2))
    alone = [each_step(once, context, 3) for context in contexts]
    pairs = zip(sigmas, *(once.at_steps(sigmas, context) for context in contexts), strict=True)
    together = [[once.denoise(x, s.expand(BATCH), own) for own in two] for s, *two in pairs]
    for number, velocities in enumerate(alone):
        assert all(torch.equal(a, b[number]) for a, b in zip(velocities, together, strict=True))


def test_guidance_fetches_for_each_branch():
    model, clean = tiny.model(conditions=3), clip(tiny.model(conditions=3))
    once = guide(fetch_once(model), 2.0)
    assert torch.equal(
        sampled(guide(fetch_once(model, refresh=1), 2.0), given=clean),
        sampled(guide(model, 2.0), given=clean),
    )
    assert not torch.allclose(sampled(once, given=clean), sampled(guide(model, 2.0), given=clean), atol=1e-6)


def test_each_clip_of_a_batch_is_as_alone():
    model = tiny.model(layers=3)
    noise, grid = clip(model, 1), sigma_grid(STEPS)
    both = rollout(fetch_once(model), noise, grid)
    assert_same(torch.cat([rollout(fetch_once(model), one[None], grid) for one in noise]), both)


def test_no_later_frame_leaks_into_an_earlier_one(model):
    clean, chunk = clip(model), model.geometry.frames_per_chunk
    other = clean.clone()
    other[:, -2 * chunk :] = clip(model, 7)[:, -2 * chunk :]
    before, now = (sampled(fetch_once(model), given=given) for given in (clean, other))
    assert torch.equal(now[:, :-chunk], before[:, :-chunk])
    assert not torch.allclose(now[:, -chunk:], before[:, -chunk:], atol=1e-6), (
        "the last chunk sees the change"
    )


# Instruments and bad input


def test_hook_points_fire_and_attention_is_refused_in_one_line():
    model = tiny.model()
    once = fetch_once(model)
    seen = []
    with Trace(once.hook_dict, "blocks.1.hook_resid_post", lambda at, *_: seen.append(at.role)) as trace:
        sampled(once, on_pass=trace.on_pass)
    assert (seen.count("denoise"), seen.count("encode")) == (FRAMES * STEPS, FRAMES - 1)
    trace = Trace(once.hook_dict, "*.hook_pattern", lambda *_: None)
    with pytest.raises(ValueError, match="hook_pattern exists in"), trace:
        sampled(once, on_pass=trace.on_pass)
    with pytest.raises(ValueError, match="attention .* instrument the network"):
        AttentionTap(once.attn_dict, "*", print)


def test_a_plan_gives_its_cut_to_its_own_network():
    plan = Plan.read(ROOT / "reports/gallery/dense-tiles-plan.json")
    assert plan.split is not None
    shape = {"layers": plan.model.layers, **tiny.TILES}
    assert fetch_once(tiny.model(**shape), plan).cut == plan.split.encoder_layers == 6
    with pytest.raises(ValueError, match="plan is of dense-tiles, with 12 .*this network has 2, 4 and 1"):
        fetch_once(tiny.model(), plan)
    with pytest.raises(ValueError, match="plan has no split"):
        fetch_once(tiny.model(**shape), replace(plan, split=None))


def test_steps_out_of_order_are_refused():
    model = tiny.model()
    once, context = fetch_once(model), after(model, 1)
    _, second = once.at_steps(torch.tensor([1.0, 0.5]), context)
    with pytest.raises(ValueError, match="layer 0 has no past.*in order"):
        once.denoise(clip(model, 1)[:, :1], torch.full((BATCH,), 0.5), second)
    with pytest.raises(ValueError, match="Adapter attend through a tuple"):
        other = fetch_once(adapter_template.load().double(), 1)
        each_step(other, after(other, 1))


def test_it_is_public():
    assert framelens.fetch_once is fetch_once


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (tiny.model, {"cut": 3}, r"cut must be 0 to 2.*got 3"),
        (tiny.model, {"cut": -1}, r"cut must be 0 to 2.*got -1"),
        (tiny.model, {"refresh": 0}, r"refresh must be at least 1 step, got 0"),
        (tiny.model, {"refresh_from": 1.5}, r"refresh_from is a noise level from 0 to 1, got 1.5"),
        (tiny.model, {"merge": "mean"}, r"no merge is called 'mean'; there are softmax, sum"),
        (tiny_scd.model, {}, r"SCD is separated"),
        (lambda: CutModel(tiny.model(), [1]), {}, r"offers its layers as `stack`; a CutModel does not"),
    ],
)
def test_bad_input_is_refused_in_one_line(make, options, message):
    with pytest.raises(ValueError, match=message) as error:
        fetch_once(make(), **options)
    assert "\n" not in str(error.value)
