"""Oasis's sampler restated by hand and ours draw the same video; instruments see both kinds of attention."""

import json
from pathlib import Path

import oasis_reference as by_hand
import pytest
import torch
from bounds import assert_same, rounding
from precision import as_default, single_precision
from tiny import draw

from framelens.analyses.statistics.frame_attention import Statistic
from framelens.diffusion.contract import CausalDiffuser
from framelens.diffusion.sampler import ForwardPass, rollout
from framelens.diffusion.schedule import add_noise, sigma_grid
from framelens.hooks import AttentionEdit, AttentionTap, Edit, Trace, cut
from framelens.models import load, oasis
from framelens.models.loading.checkpoint import Checkpoint
from framelens.models.loading.shuffled import copy_shuffled
from framelens.models.oasis.noise import Conversion, level_of, log_odds_of, sigma_of, signal_shares
from framelens.probes.chunk.layers import Layers

pytestmark = pytest.mark.usefixtures("all_float64")

BATCH, FRAMES, WINDOW, PLACES = 2, 6, 3, 6
SAID = {"height": 4, "width": 6, "max_frames": WINDOW, "stabilization": 15}
ACTIONS = draw(BATCH, FRAMES, 25, seed=2)
SIGMA = torch.tensor([0.7, 0.3])


@pytest.fixture(scope="module")
def weights():
    return by_hand.weights()


@pytest.fixture(scope="module")
def model(weights):
    with single_precision():
        network, _ = oasis.read(Checkpoint(Path("tiny"), dict(weights)), SAID)
    return as_default(network.eval().requires_grad_(False))


def frames(count=FRAMES, seed=1):
    return draw(BATCH, count, 3, 4, 6, seed=seed)


def teacher_forced(model, clip, *instruments, cond=ACTIONS):
    def on_pass(at):
        for instrument in instruments:
            instrument.on_pass(at)

    return rollout(model, frames(), sigma_grid(2), cond, clip, True, on_pass=on_pass)


def remembered(model, clip, count):
    context = model.start(BATCH, ACTIONS)
    for frame in range(count):
        context = model.encode(clip[:, frame : frame + 1], context)
    return context


def test_a_rollout_is_the_samplers_within_the_window_and_beyond(model, weights):
    levels, first, noise = [999, 599, 199], frames(1, seed=3), frames()
    sigmas = torch.tensor([*(sigma_of(level) for level in levels), 0.0])
    # At its own level 999 a frame of noise is ours scaled to the level 0.99945.
    scale = ((1 - sigmas[0]) ** 2 + sigmas[0] ** 2).sqrt()
    drawn = rollout(model, scale * noise, sigmas, ACTIONS, first)
    expected = by_hand.sampled(weights, first, noise, ACTIONS, levels, WINDOW)
    assert_same(drawn, expected)


@pytest.mark.parametrize("count", range(FRAMES))
def test_a_cached_pass_is_a_pass_over_the_whole_window(model, weights, count):
    clip, level = frames(seed=3), 500
    start = max(0, count + 1 - WINDOW)
    told = torch.full((BATCH, count + 1 - start), 14)
    told[:, -1] = level
    v = by_hand.network(weights, clip[:, start : count + 1], told, ACTIONS[:, start : count + 1])
    a, b = by_hand.shares()[level].sqrt(), (1 - by_hand.shares()[level]).sqrt()
    x, sigma = clip[:, count : count + 1], sigma_of(level)
    velocity = model.denoise(x * (1 - sigma) / a, torch.full((BATCH,), sigma), remembered(model, clip, count))
    expected = (b * x + a * v[:, -1:]) - (a * x - b * v[:, -1:])
    assert_same(velocity, expected)


@pytest.mark.parametrize("level", [1.0, 0.9, 0.5, 0.01, 0.0])
def test_a_perfect_network_gives_the_perfect_velocity(level):
    clean, noise, sigma = frames(1, seed=4), frames(1, seed=5), torch.full((BATCH,), level)
    scale = ((1 - level) ** 2 + level**2) ** -0.5
    a, b = (1 - level) * scale, level * scale
    conversion = Conversion.of(add_noise(clean, noise, sigma[:, None]), sigma)
    assert_same(conversion.velocity(a * noise - b * clean), noise - clean)
    assert_same(conversion.scaled, a * clean + b * noise)


def test_levels_and_our_noise_levels_are_each_others_inverse():
    assert torch.equal(signal_shares(), by_hand.shares().double())
    log_odds = log_odds_of(signal_shares())
    levels = [0, 14, 99, 500, 998, 999]
    sigmas = torch.tensor([sigma_of(level) for level in levels])
    assert level_of(sigmas, log_odds).tolist() == pytest.approx(levels, abs=1e-6)
    assert level_of(torch.tensor([0.0, 1e-6, 0.99999, 1.0]), log_odds).tolist() == [0, 0, 999, 999]
    between = level_of(torch.linspace(0.05, 0.95, 50), log_odds)
    assert (between.diff() > 0).all() and (between % 1 > 0).any()


def test_it_offers_the_contract(model):
    assert isinstance(model, CausalDiffuser)
    assert (model.geometry.layers, model.geometry.tokens_per_frame, model.sampling.steps) == (4, PLACES, 10)
    assert {"blocks.3.attn.hook_rot_k", "blocks.0.hook_mlp_out"} <= set(model.hook_dict)
    described = json.loads(json.dumps(model.describe()))
    assert (described["window"], described["actions"], described["heads"]) == (WINDOW - 1, 25, 2)


def test_watching_changes_no_bit_and_every_point_fires_once_a_pass(model):
    clip, seen = frames(seed=3), []
    with Trace(model.hook_dict, "*", lambda at, name, value: seen.append(value.shape[:2])) as trace:
        with AttentionTap(model.attn_dict, "*", lambda *_: None) as tap:
            watched = teacher_forced(model, clip, trace, tap)
    assert torch.equal(watched, teacher_forced(model, clip))
    assert set(seen) == {(BATCH, PLACES)}  # also where the window slides and its keys are made again


def test_patterns_describe_both_kinds_of_attention_clip_by_clip(model):
    heard, ages = {}, {}

    def keep(at, name, call):
        heard[name] = call
        return call.out

    def check(at, name, pattern):
        assert_same(pattern.expect(heard[name].v), heard[name].out)
        mass, entropy = pattern.statistics()
        assert mass.shape[:3] == entropy.shape == (BATCH, 2, PLACES) and pattern.queries == PLACES
        assert_same(mass.sum(-1), torch.ones_like(entropy))
        rows = pattern.rows(0, PLACES)
        assert_same(rows.sum(-1), torch.ones_like(entropy))
        ages[at.role, at.frame, int(name.split(".")[1]) % 2] = pattern.key_age.tolist()

    with AttentionEdit(model.attn_dict, {"*": keep}, roles=("denoise", "encode")) as edit:
        with AttentionTap(model.attn_dict, "*", check) as tap:
            teacher_forced(model, frames(seed=3), edit, tap)
    assert ages["denoise", 4, 0] == ages["encode", 4, 0] == [0] * PLACES
    assert [ages["denoise", frame, 1] for frame in (0, 1, 4)] == [[0], [1, 0], [2, 1, 0]]
    assert ages["encode", 4, 1] == [1, 0]


def test_a_key_along_time_is_as_old_as_its_frame(model):
    """Keys of the first temporal layer are of their own frame alone: those that change with it are its."""
    clip, place = frames(seed=3), "blocks.1.attn"

    def keys(given):
        kept = []
        context = remembered(model, given, FRAMES - 1)
        with AttentionTap(model.attn_dict, place, lambda at, name, p: kept.append((p.k.clone(), p))) as tap:
            tap.on_pass(ForwardPass(FRAMES - 1, 0, 0.5, "denoise"))
            model.denoise(given[:, -1:], SIGMA, context)
        return kept[0]

    plain, pattern = keys(clip)
    for frame in range(FRAMES - 1):
        changed = clip.clone()
        changed[:, frame] += 1
        differs = (keys(changed)[0] != plain).any(-1).any(0).any(0)
        assert torch.equal(differs, pattern.key_age == FRAMES - 1 - frame)


def test_attention_by_lag_stands_beside_layers_that_see_no_other_frame(model):
    statistic = Statistic(queries=4)

    def feed(at, name, pattern):
        if at.role == "denoise":
            statistic.add(at, name, pattern)

    with AttentionTap(model.attn_dict, "*", feed) as tap:
        teacher_forced(model, frames(seed=3), tap)
    seen = statistic.result()
    assert dict(seen.sizes) == {"clip": 2, "frame": 6, "layer": 4, "head": 2, "step": 2, "lag": 3}
    assert float(abs(seen.mass.sum("lag") - 1).max()) < 1e-5
    assert (seen.cross_mass.isel(layer=[0, 2]) == 0).all()
    assert (seen.cross_mass.isel(layer=[1, 3], frame=slice(1, None)) > 0).all()
    assert seen.uniform.isel(frame=-1).values.tolist() == pytest.approx([1 / 3] * 3)
    expected = torch.tensor([[PLACES, min(frame + 1, WINDOW)] * 2 for frame in range(FRAMES)]).log().numpy()
    assert abs(seen.uniform_entropy - expected).max() < 1e-6


def test_an_edit_at_each_point_changes_the_output(model):
    x, context = frames(1), remembered(model, frames(seed=3), 2)
    plain = model.denoise(x, SIGMA, context)
    for name in model.hook_dict:
        with Edit(model.hook_dict, {name: lambda at, name, value: value.flip(1) * 1.5}) as edit:
            edit.on_pass(ForwardPass(2, 0, 0.5, "denoise"))
            assert (model.denoise(x, SIGMA, context) - plain).abs().max() > 1e-6, name


@pytest.mark.parametrize("layer", range(4))
def test_an_edit_of_attention_is_of_clips_and_places(model, layer):
    """The result to go on with is [b h n d] in both kinds, and each query stays in its place."""
    x, context, name = frames(1), remembered(model, frames(seed=3), 2), f"blocks.{layer}.attn"
    z = []

    def louder(at, name, call):
        assert call.out.shape == (BATCH, 2, PLACES, 16)
        out = call.out.clone()
        out[1, 0, 4] = 7.0
        return out

    with AttentionEdit(model.attn_dict, {name: louder}) as edit:
        with Trace(model.hook_dict, f"{name}.hook_z", lambda at, name, value: z.append(value)) as trace:
            for instrument in (edit, trace):
                instrument.on_pass(ForwardPass(2, 0, 0.5, "denoise"))
            model.denoise(x, SIGMA, context)
    louder = z[0] == 7.0
    assert louder[1, 4, 0].all() and int(louder.sum()) == 16


def test_layers_can_be_passed_over_and_cut_and_the_null_network_differs(model):
    x, context, at = frames(1), remembered(model, frames(seed=3), 2), ForwardPass(2, 0, 0.5, "denoise")
    plain = model.denoise(x, SIGMA, context)
    layers = Layers(model)
    assert len(layers) == 4 and layers.modules is not None
    with layers.replace_outputs({1: lambda entered: entered}) as on_pass:
        on_pass(at)
        assert not torch.equal(model.denoise(x, SIGMA, context), plain)
    null = copy_shuffled(model, seed=0)
    assert not torch.equal(null.denoise(x, SIGMA, null.start(BATCH, ACTIONS)), plain)
    assert torch.equal(model.denoise(x, SIGMA, context), plain)


def test_a_cut_along_time_leaves_a_frame_alone(model):
    """Cut in all temporal layers, a frame is drawn as if nothing had been before it."""
    x, context, at = frames(1), remembered(model, frames(seed=3), 2), ForwardPass(2, 0, 0.5, "denoise")
    with cut(model.attn_dict, ["blocks.1.attn", "blocks.3.attn"]) as edit:
        edit.on_pass(at)
        alone = model.denoise(x, SIGMA, context)
    plain, expected = (
        model.denoise(x, SIGMA, past) for past in (context, model.start(BATCH, ACTIONS[:, 2:]))
    )
    assert_same(alone, expected)
    with cut(model.attn_dict, ["blocks.0.attn", "blocks.2.attn"]) as edit:
        edit.on_pass(at)
        assert torch.equal(model.denoise(x, SIGMA, context), plain)


@pytest.mark.slow
def test_a_later_frame_and_its_action_change_nothing_earlier(model):
    clip = frames(seed=3)
    plain = teacher_forced(model, clip)
    for frame in range(1, FRAMES):
        changed, actions = clip.clone(), ACTIONS.clone()
        changed[:, frame], actions[:, frame] = 1.0, 1.0
        other = teacher_forced(model, changed, cond=actions)
        assert torch.equal(other[:, :frame], plain[:, :frame])
        assert (other - plain)[:, frame : frame + WINDOW].abs().amax((0, 2, 3, 4)).min() > 1e-6
        # Beyond the window the frame is forgotten.
        assert torch.equal(other[:, frame + WINDOW :], plain[:, frame + WINDOW :])


@pytest.mark.parametrize("count", [1, 2, 4])
def test_contexts_are_values(model, count):
    past, x = remembered(model, frames(seed=3), count), frames(1, seed=5)
    before = model.denoise(x, SIGMA, past)
    one, two = model.encode(x, past), model.encode(x + 1, past)
    assert torch.equal(model.denoise(x, SIGMA, past), before)
    again = model.denoise(x, SIGMA, model.encode(x, past))
    assert_same(model.denoise(x, SIGMA, one), again)
    assert not torch.equal(model.denoise(x, SIGMA, two), again)


def test_without_actions_no_key_is_pressed(model):
    x = frames(1)
    still = model.start(BATCH, model.null_condition.expand(BATCH, 1, -1))
    assert torch.equal(model.denoise(x, SIGMA, model.start(BATCH)), model.denoise(x, SIGMA, still))
    with pytest.raises(ValueError, match=r"\[2, .*25\].*\(2, 6\)"):
        model.start(BATCH, ACTIONS[..., 0])
    with pytest.raises(ValueError, match=r"\b1 .*\b1 "):
        model.denoise(x, SIGMA, model.encode(x, still))


def test_the_door_reads_a_file_and_keeps_frequencies_exact(weights, model, tmp_path):
    from safetensors.torch import save_file

    file = tmp_path / "oasis500m.safetensors"
    save_file(weights, file)
    with single_precision():
        read, half = (load(str(file), dtype=dtype, **SAID) for dtype in ("float32", "bfloat16"))
    read = as_default(read)
    assert read.source.metadata["network"] == "oasis"
    x = frames(1)
    expected = model.denoise(x, SIGMA, model.start(BATCH))
    assert_same(read.denoise(x, SIGMA, read.start(BATCH)), expected)
    assert torch.equal(half.time_frequencies, model.time_frequencies.to(half.time_frequencies.dtype))
    assert half.log_odds.dtype == torch.float64
    with single_precision():
        rough = half.denoise(x.float(), SIGMA.float(), half.start(BATCH))
    assert (rough - expected).abs().max() < 0.1 * expected.abs().max()


def test_frequencies_may_have_any_of_their_names_or_be_missing():
    def named(*names, width=128):
        made = by_hand.weights(width=width, heads=width // 64, blocks=1)
        space, time = (made.pop(f"blocks.0.{kind}_attn.rotary_emb.freqs") for kind in "st")
        made |= {name: time if name[0] == "t" or "t_attn" in name else space for name in names}
        return oasis.read(Checkpoint(Path("tiny"), made), SAID)[0]

    one = named("spatial_rotary_emb.freqs", "temporal_rotary_emb.freqs")
    two = named("blocks.0.s_attn.rotary_emb.freqs", "spatial_rotary_emb.freqs", "temporal_rotary_emb.freqs")
    none = named()
    for other in (two, none):
        for name in ("space_frequencies", "time_frequencies"):
            expected = getattr(one, name)  # files keep them in float32
            assert_same(getattr(other, name), expected, bound=rounding(torch.float32, 1, 1, expected))


@pytest.mark.parametrize(
    "changes, stated, words",
    [
        ({"external_cond.bias": None}, {}, r"external_cond\.bias"),
        ({"extra": torch.zeros(1)}, {}, "extra"),
        ({"blocks.1.t_mlp.fc2.weight": torch.zeros(32, 4)}, {}, r"blocks\.1\.t_mlp\.fc2\.weight"),
        ({"external_cond.weight": None}, {}, r"external_cond\.weight"),
        ({}, {"height": 5}, "5 x 6"),
        ({}, {"max_frames": 1}, "max_frames.* 1.* 2"),
        ({}, {"stabilization": 0}, "stabilization.* 0"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(weights, changes, stated, words):
    held = {name: tensor for name, tensor in (weights | changes).items() if tensor is not None}
    with pytest.raises(ValueError, match=words) as error:
        oasis.read(Checkpoint(Path("tiny"), held), SAID | stated)
    assert "\n" not in str(error.value) and str(error.value).startswith("tiny")
