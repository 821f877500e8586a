"""AnyFlow's passes are diffusers' own: chunk by chunk, phantom keys, compressed past and all."""

import json
from pathlib import Path

import pytest
import torch
from bounds import assert_same
from precision import as_default, single_precision
from tiny import draw
from tiny_anyflow import SAID, stock

from framelens.diffusion.contract import CausalDiffuser
from framelens.diffusion.sampler import ForwardPass, rollout
from framelens.diffusion.schedule import sigma_grid
from framelens.hooks import AttentionEdit, AttentionTap, Edit, Trace, cut
from framelens.models import anyflow, load
from framelens.models.loading.checkpoint import Checkpoint
from framelens.models.loading.shuffled import copy_shuffled
from framelens.probes.chunk.layers import Layers

diffusers = pytest.importorskip("diffusers")

pytestmark = [
    pytest.mark.usefixtures("all_float64"),
    pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile"),
]

CHUNKS, BATCH = 5, 2
TABLES = 1e-7
"""Our tables of rotation are complex64 in every precision, diffusers' are complex128."""
PROMPT = draw(BATCH, 3, 16, seed=2)
SIGMA = torch.tensor([0.7, 0.3])


def checkpoint(network, path="tiny", **changes):
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    return Checkpoint(Path(path), weights, json.loads(network.to_json_string()) | changes)


def adapted(network, **stated):
    """Our reading of that network's own checkpoint."""
    with single_precision():
        model, _ = anyflow.read(checkpoint(network), {**anyflow.DEFAULTS, **SAID, **stated})
    return as_default(model.eval().requires_grad_(False))


@pytest.fixture(scope="module", params=[1, 3], ids=["chunks of 1", "chunks of 3"])
def pair(request):
    network = stock()
    return network, adapted(network, frames_per_chunk=request.param)


@pytest.fixture(scope="module")
def model():
    return adapted(stock(), frames_per_chunk=2)


def latents(model, chunks=CHUNKS, seed=1):
    g = model.geometry
    return draw(BATCH, chunks * g.frames_per_chunk, g.channels, g.height, g.width, seed=seed)


def teacher_forced(model, clip, *instruments):
    """A rollout of 2 steps from the true past of each chunk, watched by all instruments."""

    def on_pass(at):
        for instrument in instruments:
            instrument.on_pass(at)

    return rollout(model, latents(model), sigma_grid(2), PROMPT, clip, True, on_pass=on_pass)


def by_the_pipeline(network, model, noise, steps, shift, mean=True):
    """The latents that diffusers' pipeline draws from the same noise."""
    scheduler = diffusers.FlowMapEulerDiscreteScheduler(shift=shift)
    pipeline = diffusers.AnyFlowFARPipeline(None, None, network, None, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    frames = model.geometry.frames_per_chunk
    drawn = pipeline(
        prompt_embeds=PROMPT,
        latents=noise.transpose(1, 2),
        height=64,
        width=64,
        num_frames=4 * (noise.shape[1] - 1) + 1,
        num_inference_steps=steps,
        chunk_partition=[frames] * (noise.shape[1] // frames),
        use_mean_velocity=mean,
        output_type="latent",
    )
    return drawn.frames.transpose(1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("shift", [1.0, 3.0])  # whose levels float32, which schedulers keep, holds exactly
def test_a_rollout_is_the_pipelines(pair, shift):
    network, model = pair
    noise = latents(model)
    drawn = rollout(model, noise, sigma_grid(2, shift), PROMPT)
    expected = by_the_pipeline(network, model, noise, 2, shift)
    assert_same(drawn, expected, TABLES)


@pytest.mark.slow
def test_a_step_of_no_length_is_the_pipelines_without_mean_velocity(pair):
    network, model = pair
    frames, noise = model.geometry.frames_per_chunk, latents(pair[1], chunks=4)
    context, drawn = model.start(BATCH, PROMPT), []
    for x in noise.split(frames, dim=1):
        for sigma in (1.0, 0.5):
            x = x - 0.5 * model.denoise(x, torch.full((BATCH,), sigma), context)
        drawn.append(x)
        context = model.encode(x, context)
    expected = by_the_pipeline(network, model, noise, 2, 1.0, mean=False)
    assert_same(torch.cat(drawn, dim=1), expected, TABLES)


def test_the_step_to_the_same_level_differs_from_a_step_on():
    model = adapted(stock(deltatime_type="t-r"), frames_per_chunk=1)
    x, context = latents(model, 1), model.start(BATCH, PROMPT)
    (step,) = model.at_steps(torch.tensor([0.5]), context)
    level = torch.full((BATCH,), 0.5)
    assert (model.denoise(x, level, step) - model.denoise(x, level, context)).abs().max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("chunks", [2, 3, 4])
def test_chunks_of_128_tokens_are_as_in_one_masked_pass_over_the_clip(chunks):
    """Nothing is filled up then, and diffusers' training pass over [noisy | clean] is the same function."""
    network = stock()
    model = adapted(network, height=16, width=32, frames_per_chunk=1)
    clean, noisy = latents(model, chunks, seed=3), latents(model, chunks, seed=4)
    context = model.start(BATCH, PROMPT)
    for x in clean[:, :-1].split(1, dim=1):
        context = model.encode(x, context)
    small = max(0, chunks - model.layout.limit)
    level = 1000 * SIGMA[:, None].expand(-1, chunks) * (torch.arange(chunks) >= small)
    whole = network(
        hidden_states=torch.cat([clean[:, :small], noisy[:, small:]], dim=1),
        timestep=level,
        r_timestep=level,
        encoder_hidden_states=PROMPT,
        chunk_partition=[1] * chunks,
        clean_hidden_states=clean[:, small:],
        clean_timestep=torch.zeros(BATCH, chunks - small),
    )
    velocity = model.denoise(noisy[:, -1:], SIGMA, context)
    assert_same(velocity, whole.sample[:, -1:], TABLES)


def test_it_offers_the_contract(model):
    assert isinstance(model, CausalDiffuser)
    assert (model.geometry.frames_per_chunk, model.geometry.tokens_per_chunk) == (2, 32)
    assert (model.sampling.steps, model.sampling.shift) == (50, 5.0)
    assert {"blocks.1.attn.hook_rot_k", "blocks.0.cross.hook_cross_out"} <= set(model.hook_dict)
    assert json.loads(json.dumps(model.describe()))["full_chunks"] == 3
    assert model.state_dict().keys() == stock().state_dict().keys()


def test_watching_changes_no_bit_and_every_point_fires_once_a_pass(model):
    clip, seen = latents(model, seed=3), []
    tokens = model.geometry.tokens_per_chunk
    with Trace(model.hook_dict, "*", lambda at, name, value: seen.append(value.shape[1])) as trace:
        with AttentionTap(model.attn_dict, "*", lambda *_: None) as tap:
            watched = teacher_forced(model, clip, trace, tap)
    assert torch.equal(watched, teacher_forced(model, clip))
    assert set(seen) == {tokens}  # also in passes that make the keys of earlier chunks again


def test_patterns_describe_the_calls_and_count_phantoms_as_no_frame(model):
    heard, roles = {}, []

    def keep(at, name, call):
        heard[name] = call
        return call.out

    def check(at, name, pattern):
        assert_same(pattern.expect(heard[name].v), heard[name].out)
        mass, _ = pattern.statistics()
        phantoms = pattern.rows(0, 32)[..., pattern.key_age == -1].sum(-1)
        assert_same(mass.sum(-1) + phantoms, torch.ones_like(phantoms))
        assert mass.shape[-1] == at.frame + 1  # back to the first frame, and none of the future
        assert int((pattern.key_age == -1).sum()) == (96 if at.role == "denoise" else 0)
        assert (pattern.k[:, :, pattern.key_age == -1] == 0).all()
        roles.append(at.role)

    with AttentionEdit(model.attn_dict, {"*": keep}, roles=("denoise", "encode")) as edit:
        with AttentionTap(model.attn_dict, "*", check) as tap:
            teacher_forced(model, latents(model, seed=3), edit, tap)
    assert roles.count("encode") == 2 * (CHUNKS - 1) and roles.count("denoise") == 4 * CHUNKS


def test_a_key_is_as_old_as_the_frame_it_is_a_patch_of(model):
    """Keys of the first layer are of their own token alone: those that change with a frame are its."""
    clip, last = latents(model, seed=3), 2 * (CHUNKS - 1)

    def keys(given):
        kept = {}
        with AttentionTap(model.attn_dict, "blocks.0.attn", lambda at, name, p: kept.update({at: p})) as tap:
            context = model.start(BATCH, PROMPT)
            for frame in range(0, last, 2):
                tap.on_pass(ForwardPass(frame, 0, 0.0, "encode"))
                context = model.encode(given[:, frame : frame + 2], context)
            at = ForwardPass(last, 0, 0.5, "denoise")
            tap.on_pass(at)
            model.denoise(given[:, last:], torch.full((BATCH,), 0.5), context)
        return kept[at]

    plain = keys(clip)
    for frame in range(last):
        changed = clip.clone()
        changed[:, frame] += 1
        differs = (keys(changed).k != plain.k).any(-1).any(0).any(0)
        assert torch.equal(differs, plain.key_age == last - frame)


def test_an_edit_at_each_point_changes_the_output(model):
    x, context = latents(model, 1), model.encode(latents(model, 1, seed=3), model.start(BATCH, PROMPT))
    plain = model.denoise(x, SIGMA, context)
    for name in model.hook_dict:
        with Edit(model.hook_dict, {name: lambda at, name, value: value.flip(1) * 1.5}) as edit:
            edit.on_pass(ForwardPass(2, 0, 0.5, "denoise"))
            assert (model.denoise(x, SIGMA, context) - plain).abs().max() > 1e-6, name


def test_an_edit_while_a_chunk_is_remembered_reaches_the_next(model):
    clip = latents(model, seed=3)

    def loud(at, name, value):
        return 2 * value if at.role == "encode" else value

    with Edit(model.hook_dict, {"blocks.0.attn.hook_v": loud}) as edit:
        edited = teacher_forced(model, clip, edit)
    plain = teacher_forced(model, clip)
    assert torch.equal(edited[:, :2], plain[:, :2])
    assert (edited[:, 2:] - plain[:, 2:]).abs().amax((0, 2, 3, 4)).min() > 1e-6


def test_a_later_chunk_changes_nothing_earlier(model):
    clip = latents(model, seed=3)
    plain = teacher_forced(model, clip)
    for frame in range(2, 2 * CHUNKS, 2):
        changed = clip.clone()
        changed[:, frame : frame + 2] += 1
        other = teacher_forced(model, changed)
        assert torch.equal(other[:, : frame + 2], plain[:, : frame + 2])
        later = (other - plain)[:, frame + 2 :].abs().amax((0, 2, 3, 4))
        assert (later > 1e-6).all()


def test_contexts_are_values(model):
    first, x = model.encode(latents(model, 1), model.start(BATCH, PROMPT)), latents(model, 1, seed=5)
    before = model.denoise(x, SIGMA, first)
    one, two = model.encode(x, first), model.encode(x + 1, first)
    assert torch.equal(model.denoise(x, SIGMA, first), before)
    assert_same(model.denoise(x, SIGMA, model.encode(x, first)), model.denoise(x, SIGMA, one))
    assert not torch.equal(model.denoise(x, SIGMA, one), model.denoise(x, SIGMA, two))


def test_layers_can_be_passed_over_and_cut_and_the_null_network_differs(model):
    x, context = latents(model, 1), model.encode(latents(model, 1, seed=3), model.start(BATCH, PROMPT))
    plain, at = model.denoise(x, SIGMA, context), ForwardPass(2, 0, 0.5, "denoise")
    with Layers(model).replace_outputs({1: lambda entered: entered}) as on_pass:
        on_pass(at)
        assert not torch.equal(model.denoise(x, SIGMA, context), plain)
    with cut(model.attn_dict) as edit:
        edit.on_pass(at)
        assert not torch.equal(model.denoise(x, SIGMA, context), plain)
    null = copy_shuffled(model, seed=0)
    assert not torch.equal(null.denoise(x, SIGMA, null.start(BATCH, PROMPT)), plain)
    assert torch.equal(model.denoise(x, SIGMA, context), plain)


def test_without_a_prompt_the_null_condition_is_seen(model):
    x = latents(model, 1)
    null = model.null_condition.expand(BATCH, -1, -1)
    expected = model.denoise(x, SIGMA, model.start(BATCH, null))
    assert torch.equal(model.denoise(x, SIGMA, model.start(BATCH)), expected)
    with pytest.raises(ValueError, match=r"\[2, .*16\].*\(1, 3, 16\)"):
        model.start(BATCH, PROMPT[:1])


def test_the_door_reads_a_folder_and_the_shift_beside_it(tmp_path):
    network = stock()
    network.save_pretrained(tmp_path / "transformer")
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text('{"shift": 3.0}')
    with single_precision():
        model = load(str(tmp_path / "transformer"), height="8", width="8", frames_per_chunk="1")
    model = as_default(model)
    assert (model.sampling.shift, model.geometry.frames_per_chunk) == (3.0, 1)
    assert model.source.metadata["network"] == "anyflow" and not model.training
    noise = latents(model, 2)
    expected = by_the_pipeline(network, model, noise, 1, 3.0)
    drawn = rollout(model, noise, sigma_grid(1, 3.0), PROMPT)
    assert_same(drawn, expected, TABLES)


def test_a_bare_state_dict_says_its_sizes():
    network = stock(num_attention_heads=1, attention_head_dim=128, cross_attn_norm=False)
    bare = Checkpoint(Path("bare.pt"), checkpoint(network).weights)
    assert anyflow.recognises(bare.weights)
    with single_precision():
        model, metadata = anyflow.read(bare, {**anyflow.DEFAULTS, **SAID, "frames_per_chunk": 1})
    model = as_default(model)
    assert metadata["config"]["mlp_width"] == 48
    x = latents(model, 2)
    drawn = rollout(model, x, sigma_grid(1), PROMPT)
    assert_same(drawn, by_the_pipeline(network, model, x, 1, 1.0), TABLES)


@pytest.mark.parametrize(
    "config, stated, words",
    [
        ({"full_chunk_limit": 1}, {}, "full_chunk_limit.* 1.* 2"),
        ({"compressed_patch_size": [1, 4, 2]}, {}, r"\(1, p, p\)"),
        ({"num_attention_heads": 3}, {}, "24.*36"),
        ({"num_layers": 3}, {}, r"blocks\.2\."),
        ({"num_layers": "two"}, {}, "tiny: "),
        ({}, {"height": 9}, "9 x 8"),
        ({}, {"frames_per_chunk": 0}, "frames_per_chunk"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(config, stated, words):
    network = stock()
    with pytest.raises(ValueError, match=words) as error:
        anyflow.read(checkpoint(network, **config), {**anyflow.DEFAULTS, **SAID, **stated})
    assert "\n" not in str(error.value) and str(error.value).startswith("tiny")
