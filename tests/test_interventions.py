"""The laws of the interventions: what must change nothing changes nothing, what is served was served."""

import itertools

import carried
import numpy as np
import pytest
import tiny
import torch
import variants
from bounds import assert_same, differ

from framelens.diffusion.sampler import rollout
from framelens.diffusion.source import Source
from framelens.hooks import cut
from framelens.models import scd
from framelens.models.loading.shuffled import copy_shuffled
from framelens.models.parts.contexts import narrow
from framelens.probes import experiments
from framelens.probes.chunk import chunk_probe, cross_frame, partial_passes, stored_features
from framelens.probes.chunk.chunk_probe import DRAWS
from framelens.probes.chunk.cross_frame import CUT, LIVE, STORED
from framelens.probes.chunk.layers import Layers
from framelens.probes.chunk.partial_passes import Partial, all_but
from framelens.probes.chunk.pasts import Clip
from framelens.probes.chunk.stored_features import KINDS, serve_features
from framelens.probes.experiments import controls, leave_one_out, skip
from framelens.probes.experiments import cut as cutting
from framelens.probes.run import probed_clip
from framelens.probes.run.probed_clip import ProbedClip
from framelens.probes.run.settings import Settings
from framelens.probes.run.work import Session

pytestmark = pytest.mark.usefixtures("all_float64")

LAYERS, FRAMES = 3, 3
PLACES = list(itertools.product(KINDS, range(LAYERS)))
EVIDENCE = ("controls", "cut", "leave_one_out", "reuse", "reuse_controls", "reuse_refresh", "skip")
SMALL = {"clips": 1, "context": 1, "steps": 4, "frames": FRAMES, "experiments": EVIDENCE}


def probed_clip_of(model, **changes):
    clips = [Clip(tiny.draw(1, FRAMES, 3, 8, 8, seed=seed).clamp(-1, 1), None) for seed in (1, 2)]
    networks = {"trained": model, "random": copy_shuffled(model, 0)}
    return ProbedClip(0, networks, *clips, Settings(**{**SMALL, **changes}), FRAMES)


def separated(fusion):
    torch.manual_seed(0)
    config = scd.config(
        "tiny", height=8, width=8, encoder_layers=2, decoder_layers=2, heads=2, d_model=16, conditions=0,
        fusion=fusion, rope_axes=(4, 2, 2),
    )  # fmt: skip
    network = scd.build(config)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module", autouse=True)
def small_batches():
    """Two conditions at a time, so that tables take several batches, the last not full; two sigmas."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunk_probe, "ROWS", 2 * DRAWS)
        patch.setattr(probed_clip, "LEVELS", 2)
        yield


@pytest.fixture(scope="module")
def model():
    model = tiny.model(layers=LAYERS)
    model.source = Source()
    return model


@pytest.fixture(scope="module")
def probe(model):
    return probed_clip_of(model).chunk_probe()


# The chunk probe


def test_the_plain_frame_is_the_rollouts(model):
    about = probed_clip_of(model)
    probe = about.chunk_probe()
    video = rollout(
        model,
        about.noise("chunk_probe"),
        probe.grid,
        None,
        about.clip.video,
        teacher_forced=True,
        denoised_frames={2},
    )
    assert_same(probe.sample[0, 0], video[0, 2])


def test_the_first_layers_and_the_density_come_from_the_model(model):
    assert Layers(model).names == ["blocks.0", "blocks.1", "blocks.2"]
    assert Layers(separated("prefix")).names == ["decoder.blocks.0", "decoder.blocks.1"]
    model.source = Source(metadata={"training": {"recipe": {"uniform_share": 1.0}}})
    uniform = probed_clip_of(model).chunk_probe().levels
    model.source = Source()
    assert_same(uniform, torch.tensor([0.25, 0.75]))
    assert probed_clip_of(model).chunk_probe().levels[0] > 0.3


def test_a_network_that_gives_no_numbers_is_named(model):
    broken = tiny.model(layers=LAYERS)
    broken.blocks[1].mlp[0].weight[0, 0] = torch.nan
    broken.source = model.source
    with pytest.raises(ValueError, match=r"first at blocks.1.hook_mlp_out.*blocks.1.mlp.0.weight"):
        probed_clip_of(broken).chunk_probe()


# Layers replaced


def test_layers_that_give_what_they_would_give_change_no_bit(probe):
    x = probe.path[1]
    plain, features = probe.record(x, 0.75)
    for layer in range(LAYERS):
        after = features.residual[layer + 1]
        with probe.layers.replace_outputs({layer: lambda entered, after=after: after}) as on_pass:
            assert torch.equal(probe.velocity(x, 0.75, 0, [on_pass]), plain)
        resumed = Partial(all_but(probe, range(layer + 1)), lambda tokens, after=after: after)
        assert torch.equal(partial_passes.velocity(probe, [resumed], x, 0.75, 0), plain)


@pytest.mark.slow
@pytest.mark.parametrize("outputs", [{0: lambda x: x}, {1: lambda x: 2 * x, 2: lambda x: x + 1}])
def test_a_model_whose_layers_must_run_gives_the_same(model, outputs):
    blocks, values = Layers(model), Layers(model)
    values.modules = None
    velocity = []
    for layers in (blocks, values):
        probe = probed_clip_of(model).chunk_probe()
        with layers.replace_outputs(outputs) as on_pass:
            velocity.append(probe.velocity(probe.noise, 1.0, 0, [on_pass]))
    assert torch.equal(*velocity)
    assert not torch.allclose(velocity[0], probe.velocity(probe.noise, 1.0))


def test_the_modules_of_blocks_are_found_by_their_own_ends_or_offered():
    model = tiny.model()
    assert list(Layers(model).modules.values()) == list(model.blocks)
    foreign = tiny.model()
    foreign.hook_dict = dict(model.hook_dict)
    assert Layers(foreign).modules is None
    foreign.block_dict = {f"blocks.{index}": block for index, block in enumerate(model.blocks)}
    assert list(Layers(foreign).modules.values()) == list(model.blocks)
    assert Layers(tiny.said(hook_dict=model.hook_dict)).modules is None, "it has no modules"


def test_a_model_without_named_layers_is_refused():
    with pytest.raises(ValueError, match=r"blocks.0.hook_resid_post.*\['mid'\]"):
        Layers(tiny.said(hook_dict={"mid": torch.nn.Identity()}))


# Conditions that run some of the layers


def conditions_of_every_kind(probe):
    residual = probe.features(0).residual
    kept = [Partial(all_but(probe, layers)) for layers in ((), (0,), (1, 2), range(LAYERS))]
    return kept + [serve_features(probe, *place, residual) for place in PLACES]


def test_conditions_of_one_batch_get_what_each_of_them_gets_alone(probe):
    conditions, x = conditions_of_every_kind(probe), probe.path[1]
    assert probe.ranges is not None, "this network's layers run by ranges"
    together = partial_passes.velocities_at(probe, conditions, x, 0.5, 1)
    for condition, velocity in zip(conditions, together, strict=True):
        assert_same(velocity, partial_passes.velocity(probe, [condition], x, 0.5, 1))
    assert differ(together[0], together[1])


def test_a_layer_runs_on_the_rows_that_need_it_and_on_no_other(model):
    probe, seen = probed_clip_of(model).chunk_probe(), [0] * LAYERS
    conditions = conditions_of_every_kind(probe)

    def count(layer):
        def add(_module, inputs):
            seen[layer] += len(inputs[0])

        return add

    entered = enumerate(block.hook_resid_pre for block in model.blocks)
    handles = [point.register_forward_pre_hook(count(layer)) for layer, point in entered]
    began = probe.evaluations
    partial_passes.velocities_at(probe, conditions, probe.noise, 0.5, 1)
    for handle in handles:
        handle.remove()
    assert seen == [DRAWS * sum(layer in one.runs for one in conditions) for layer in range(LAYERS)]
    assert probe.evaluations - began == sum(seen)


def test_a_network_without_ranges_of_layers_gets_the_same(model, monkeypatch):
    probe = probed_clip_of(model).chunk_probe()
    conditions = conditions_of_every_kind(probe)
    mixed = partial_passes.generate(probe, conditions, probe.noise)
    monkeypatch.setattr(type(model), "stack", None)
    without = probed_clip_of(model).chunk_probe()
    assert without.ranges is None
    assert_same(partial_passes.generate(without, conditions_of_every_kind(without), without.noise), mixed)


def test_a_past_for_fewer_rows_is_that_of_the_most_rows_also_after_their_passes(model):
    probe = probed_clip_of(model).chunk_probe()
    most = DRAWS * probe.batch
    x = probe.noise.repeat(probe.batch, 1, 1, 1, 1)
    wide = probe.velocity(x, 0.5)
    few = narrow(probe.pasts.contexts[most, "own"], 1, model.geometry.tokens_per_chunk)
    level = torch.full((most,), 0.5)
    for _ in range(2):
        assert_same(model.denoise(x[:1], level[:1], few), wide[:1])
        assert_same(probe.velocity(x, 0.5), wide)
    held, ours = (context.cache.storage.keys[0] for context in (probe.pasts.contexts[most, "own"], few))
    assert held.data_ptr() == ours.data_ptr(), "the past is in memory twice"


# Reuse


def test_features_served_to_the_pass_they_come_from_change_nothing(probe):
    for step in (0, 2):
        x, features = probe.path[step], probe.features(step)
        plain = probe.velocity(x, probe.sigma(step), step)
        for layer in range(LAYERS):
            own = [serve_features(probe, kind, layer, features.residual) for kind in KINDS]
            for velocity in partial_passes.velocities_at(probe, own, x, probe.sigma(step), step):
                assert_same(velocity, plain)
            modes = cross_frame.through(probe, layer, STORED).expand(DRAWS, -1, -1)
            with cross_frame.edit_cross_part(probe, modes, features.cross) as on_pass:
                assert_same(probe.velocity(x, probe.sigma(step), step, [on_pass]), plain)


@pytest.mark.slow
def test_features_refreshed_at_every_step_draw_the_plain_frame_and_else_another(probe):
    modes = torch.stack([cross_frame.through(probe, layer, STORED) for layer in range(LAYERS)])
    for every, is_plain in {1: True, 2: False}.items():
        frames = [*cross_frame.generate_refreshed(probe, modes, every)]
        frames += [*stored_features.generate_refreshed(probe, PLACES, every)]
        for drawn in frames:
            assert is_plain != differ(drawn, probe.sample)
            if is_plain:
                assert_same(drawn, probe.sample)


def test_refreshing_after_the_last_step_is_reusing_the_first(probe):
    residual = probe.features(0).residual
    once = [serve_features(probe, *place, residual) for place in PLACES]
    assert_same(
        partial_passes.generate(probe, once, probe.path[1], 1),
        stored_features.generate_refreshed(probe, PLACES, probe.steps),
    )
    modes = torch.stack([cross_frame.through(probe, 1, STORED)])
    assert_same(
        cross_frame.generate(probe, modes, probe.features(0).cross, 1),
        cross_frame.generate_refreshed(probe, modes, probe.steps),
    )


def test_a_hard_reuse_of_all_layers_repeats_the_first_velocity_in_new_modulation(probe):
    """After the last layer only the final norm knows the step: what enters it does not move."""
    last = LAYERS - 1
    served = [serve_features(probe, kind, last, probe.features(0).residual) for kind in KINDS]
    hard = [
        partial_passes.velocities_at(probe, served, probe.noise * scale, 0.5, 1)[KINDS.index("hard")]
        for scale in (1, 5)
    ]
    assert torch.equal(*hard)


def test_the_share_of_blocks_is_counted_by_hand(probe):
    assert probe.steps == 4
    assert stored_features.block_share(probe, LAYERS, lambda step: step == 0) == pytest.approx(1 / 4)
    assert stored_features.block_share(probe, 1, lambda step: step % 2 == 0) == pytest.approx(1 - 2 / 12)


# Cut


def test_nothing_cut_is_the_plain_model_and_all_cut_sees_no_past(model):
    probe = probed_clip_of(model).chunk_probe()
    nothing = cross_frame.live(probe)[None]
    assert_same(cross_frame.generate(probe, nothing, {})[0], probe.sample)
    assert_same(cross_frame.velocities(probe, nothing, {})[0], probe.plain_velocities)
    everything = torch.full_like(nothing, CUT)
    # Rotary positions are relative: a frame alone is the same wherever it stands.
    alone = probe.generate(
        probe.noise,
        lambda x, step: model.denoise(x, torch.full((DRAWS,), probe.sigma(step)), model.start(DRAWS)),
    )
    assert_same(cross_frame.generate(probe, everything, {})[0], alone)
    assert not torch.allclose(alone, probe.sample, atol=1e-2)


@pytest.mark.parametrize(
    "place", [{"where": "from", "layer": 1}, {"where": "only", "layer": 0}, {"layer": 2, "head": 1}]
)
def test_a_row_of_cuts_is_what_the_instrument_cuts(model, probe, place):
    modes = cutting.cut_modes(probe, **place)
    cut_layers = {layer for layer in range(LAYERS) if (modes[layer] == CUT).any()}
    heads = [place["head"]] if "head" in place else None
    with cut(model.attn_dict, [f"blocks.{layer}.attn" for layer in cut_layers], heads) as edit:
        expected = probe.generate(
            probe.noise, lambda x, step: probe.velocity(x, probe.sigma(step), step, [edit.on_pass])
        )
    table = torch.stack([cross_frame.live(probe), modes, torch.full_like(modes, CUT)])
    assert_same(cross_frame.generate(probe, table, {})[1], expected)


def test_cuts_from_the_first_and_up_to_the_last_are_the_same(probe):
    first, last = (
        cutting.cut_modes(probe, where=where, layer=layer) for where, layer in (("from", 0), ("up_to", 2))
    )
    assert torch.equal(first, last) and (first == CUT).all()
    up_to, only = (cutting.cut_modes(probe, where=where, layer=1) for where in ("up_to", "only"))
    assert up_to.tolist() == [[CUT] * 2, [CUT] * 2, [LIVE] * 2]
    assert only.tolist() == [[LIVE] * 2, [CUT] * 2, [LIVE] * 2]


# Leave one out, skip


def test_resumed_behind_a_layer_is_the_whole_stack_without_it_for_less_work(model):
    probe = probed_clip_of(model).chunk_probe()
    x = probe.at_level(0.5)
    began = probe.evaluations
    resumed = leave_one_out.velocities_without(probe, list(range(LAYERS)), x, 0.5)
    assert probe.evaluations - began == DRAWS * (LAYERS + 2 + 1 + 0)
    for layer, velocity in enumerate(resumed):
        with probe.layers.replace_outputs({layer: lambda entered: entered}) as on_pass:
            assert_same(velocity, probe.velocity(x, 0.5, 0, [on_pass]))


@pytest.mark.slow
def test_a_layer_with_closed_gates_can_be_left_out():
    model = tiny.model(layers=LAYERS)
    model.source = Source()
    for norm in (model.blocks[1].norm1, model.blocks[1].norm2):
        for weight in norm.parameters():
            weight[-model.config.d_model :] = 0  # the gate is the last third of the modulation
    found = leave_one_out.measure(probed_clip_of(model))["leave_one_out"].sel(network="trained")
    loss = found.relative_loss.mean(("clip", "sigma")).values
    assert loss[1] == 0 and abs(loss[[0, 2]]).min() > 1e-3
    # Batches of another size round differently in the last bit.
    assert found.change.values[0, 1] < (10 * np.finfo(float).eps) ** 2 < found.change.values[0, 0]


def test_a_span_kept_to_the_end_is_the_plain_model_and_one_layer_is_leaving_it_out(probe):
    spans = [skip.skip_span(probe, span) for span in ((0, 2), (1, 1))]
    drawn = partial_passes.generate(probe, spans, probe.sample, probe.steps)
    assert_same(drawn, probe.sample.expand_as(drawn))
    one = partial_passes.generate(probe, [Partial(all_but(probe, [1]))], probe.noise)
    assert_same(partial_passes.generate(probe, spans, probe.noise)[1:], one)


def test_spans_are_half_and_a_quarter_at_every_place():
    assert skip.spans(0, 3) == [(0, 0), (1, 1), (2, 2), (3, 3), (0, 1), (1, 2), (2, 3)]
    assert skip.spans(2, 3) == [(2, 2), (3, 3)]
    assert skip.spans(0, 7, is_quick=True) == [(0, 1), (2, 3), (4, 5), (6, 7), (0, 3), (2, 5), (4, 7)]


@pytest.mark.parametrize("first, last", [(2, 1), (0, LAYERS), (-1, 1)])
def test_a_span_that_is_empty_or_beyond_the_model_is_refused(probe, first, last):
    with pytest.raises(ValueError, match=rf"{first} .* {last} .* 3 "):
        skip.skip_span(probe, (first, last))


def test_an_empty_range_has_no_spans():
    with pytest.raises(ValueError, match="3 .* 2 "):
        skip.spans(3, 2)


# Controls


def by_control(dataset, name):
    return dict(zip(dataset.control.values.tolist(), dataset[name].values[0].tolist(), strict=True))


def test_controls_pass_on_a_network_that_uses_its_past(model):
    found = controls.measure(probed_clip_of(model))["controls"]
    effect = by_control(found, "effect")
    assert effect["identity_edit"] == effect["identity_attention"] == 0
    assert (found.passed == 1).all()
    assert (
        by_control(found, "must_fire")["own_frame_only"]
        == 1
        == 1 - by_control(found, "must_fire")["identity_edit"]
    )


def test_controls_fail_on_a_network_that_does_not(model):
    blind = tiny.model(layers=LAYERS)
    blind.source = model.source
    for block in blind.blocks:
        block.attn.o.weight.zero_()
    passed = by_control(controls.measure(probed_clip_of(blind))["controls"], "passed")
    assert passed["identity_edit"] == 1 and passed["own_frame_only"] == 0 == passed["other_clip_cross"]


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["token_concat", "prefix", "add"])
def test_a_separated_model_is_measured_in_its_decoder(fusion):
    network = separated(fusion)
    network.source = Source()
    about = probed_clip_of(network)
    passed = by_control(controls.measure(about)["controls"], "passed")
    if fusion == "add":  # the past comes in beside the tokens: nothing attends, so nothing can be cut
        assert np.isnan([passed["own_frame_only"], passed["other_clip_cross"]]).all()
        assert passed["other_clip_features"] == 1
        return
    assert set(passed.values()) == {1.0}
    found = cutting.measure(about)["cut"]
    assert found.point.values.tolist() == ["decoder.blocks.0", "decoder.blocks.1"]
    assert found.change.sel(where="from", layer=0).item() > found.change.sel(where="from", layer=1).item() > 0


def test_registers_belong_to_the_stored_part_and_hand_on_no_past_under_a_cut():
    network = variants.adapted(carried.Carried)
    clips = [Clip(tiny.draw(1, FRAMES, 3, 20, 20, seed=seed).clamp(-1, 1), None) for seed in (1, 2)]
    networks = {"trained": network, "random": network}
    probe = ProbedClip(0, networks, *clips, Settings(**SMALL), FRAMES).chunk_probe()
    depth, features = len(probe.layers), probe.features()
    stored = torch.stack([cross_frame.through(probe, layer, STORED) for layer in range(depth)])
    with cross_frame.edit_cross_part(probe, stored[-1:].expand(DRAWS, -1, -1), features.cross) as on_pass:
        served = probe.velocity(probe.noise, probe.sigma(0), 0, [on_pass])
    assert_same(served, probe.velocity(probe.noise, probe.sigma(0)))
    found = {}
    with probe.remember("other_frames"):
        for past, layer in itertools.product(("own", "other_frames"), (0, 1)):
            modes = cutting.cut_modes(probe, layer, "from").expand(DRAWS, -1, -1)
            with cross_frame.edit_cross_part(probe, modes, {}) as on_pass:
                found[past, layer] = probe.velocity(probe.noise, 1.0, 0, [on_pass], past)
    assert_same(found["own", 0], found["other_frames", 0])
    assert not torch.allclose(found["own", 1], found["other_frames", 1]), "layer 0 sees the past"


# What is written

SAMPLED = {"mse", "psnr", "sharpness", "diversity", "change"}
PLAIN = {f"plain_{name}" for name in SAMPLED - {"change"}} | {"plain_velocity_error"}
VELOCITY = {"velocity_error", "velocity_change"}
AXES = {
    "reuse": ({"kind": 4, "layer": 3, "start": 3}, SAMPLED | VELOCITY | PLAIN | {"block_share"}),
    "reuse_refresh": ({"kind": 3, "layer": 3, "refresh": 2}, SAMPLED | PLAIN | {"block_share"}),
    "reuse_controls": ({"source": 2, "kind": 3, "layer": 3}, SAMPLED | VELOCITY | PLAIN),
    "skip": ({"span": 3, "kept_steps": 3}, SAMPLED | VELOCITY | PLAIN | {"block_share"}),
    "cut": ({"network": 2, "where": 3, "layer": 3}, SAMPLED | VELOCITY | PLAIN),
    "cut_heads": ({"layer": 3, "head": 2}, SAMPLED | VELOCITY | PLAIN),
    "leave_one_out": ({"network": 2, "layer": 3}, SAMPLED | VELOCITY | PLAIN | {"relative_loss"}),
    "controls": ({"control": 5}, {"effect", "must_fire", "passed", "past_effect"}),
    "other_past": ({}, SAMPLED | VELOCITY),
}


@pytest.fixture(scope="module")
def results(model):
    about = probed_clip_of(model)
    return Session(dict(about.networks), [about.clip, about.other], about.settings, FRAMES).measure(0)


@pytest.mark.slow
def test_everything_promised_is_measured(results):
    pictures = {"cut_frames", "leave_one_out_frames", "reuse_frames"}
    assert set(results) == set(AXES) | pictures and set(EVIDENCE) <= set(experiments.names())


@pytest.mark.slow
@pytest.mark.parametrize("name", AXES)
def test_axes_and_variables_are_as_promised(results, name):
    sizes, variables = AXES[name]
    dataset = results[name]
    assert set(dataset.data_vars) == variables
    sizes = sizes | ({} if name in ("controls", "reuse_refresh") else {"sigma": 2})
    for axis, size in sizes.items():
        assert dataset.sizes[axis] == size == len(dataset[axis])
    for variable in dataset.data_vars.values():
        assert variable.dims[0] == "clip" and variable.dtype == np.float32
        assert variable.attrs["units"] and variable.attrs["long_name"]
    assert dataset.attrs["steps"] == 4 and dataset.attrs["frame"] == FRAMES - 1


@pytest.mark.slow
def test_numbers_are_finite_where_they_are_promised(results):
    for name, dataset in results.items():
        for variable in dataset.data_vars.values():
            missing = variable.isnull()
            if name == "reuse_controls" and "kind" in variable.dims:
                nothing = (dataset.source == "none") & (dataset.kind == "hard")
                assert bool((missing == nothing).all())
            else:
                assert not missing.any(), f"{name}.{variable.name}"


@pytest.mark.slow
def test_shared_prefixes_are_counted_as_saved(results):
    for name in ("reuse", "leave_one_out", "skip"):
        about = results[name].attrs
        assert 0 < about["block_evaluations"] < 0.75 * about["block_evaluations_of_rerunning"], name


def test_the_error_of_the_truth_is_nothing_and_its_sharpness_one(probe):
    from framelens.probes.chunk.measures import of_frames

    truth = probe.truth.expand(DRAWS, -1, -1, -1, -1)
    assert of_frames(truth, truth, probe.truth) == {
        "mse": 0, "psnr": pytest.approx(100), "sharpness": 1, "diversity": 0, "change": 0,
    }  # fmt: skip
    blurred = truth.mean((-1, -2), keepdim=True).expand_as(truth)
    blind = of_frames(torch.cat([blurred[:1], -blurred[:1]]), truth, probe.truth)
    assert blind["sharpness"] == pytest.approx(0, abs=1e-12) and blind["diversity"] > 0


def test_a_quick_run_takes_fewer_layers_steps_and_starts():
    deep = Settings(quick=True, steps=20)
    assert deep.chosen_layers(12) == [0, 2, 4, 6, 8, 10, 11] and deep.drawn_steps == 5
    assert deep.start_steps == [0, 2] and Settings(steps=20).start_steps == [0, 2, 5, 7]
    assert Settings(layers=(2, 4)).chosen_layers(12) == [2, 3, 4]
    assert Settings(quick=True, steps=10, probed=2).slug() == "quick"
    assert Settings(layers=(2, 4)).slug() == "layers-2+4"
