"""Wan: our passes are the stock network's, whole or chunk by chunk, and every checkpoint format opens."""

import copy
import dataclasses
from functools import partial
from pathlib import Path

import pytest
import tiny_wan
import torch
from bounds import assert_same
from tiny_wan import FRAMES, SIGMA, TEXT, chunk_by_chunk, clip, largest, levels, prompt, stock_pass

from framelens import models
from framelens.diffusion.contract import CausalDiffuser
from framelens.diffusion.guidance import guide
from framelens.diffusion.sampler import ForwardPass, rollout
from framelens.diffusion.schedule import Sampling, sigma_grid
from framelens.hooks.attention import AttentionTap
from framelens.hooks.attention_edit import AttentionEdit, cut
from framelens.hooks.edit import Edit
from framelens.hooks.trace import Trace
from framelens.models import wan
from framelens.models.cost import operations
from framelens.models.loading.checkpoint import Checkpoint
from framelens.models.loading.shuffled import copy_shuffled
from framelens.models.parts.cache import KVCache, KVStorage
from framelens.models.wan.config import WanConfig, config_of
from framelens.models.wan.names import for_diffusers
from framelens.probes.chunk.layers import Layers
from framelens.probes.experiments.mask_drift import mask_drift

pytestmark = pytest.mark.usefixtures("all_float64")

CHUNKS = pytest.mark.parametrize("chunk", [1, 3])
REACHES = pytest.mark.parametrize("reach", [{}, {"window": 2}, {"window": 2, "sink": 1}], ids=str)


@pytest.fixture(scope="module")
def network():
    return tiny_wan.stock()


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory):
    return tiny_wan.folder(tmp_path_factory.mktemp("wan") / "tiny", network)


@pytest.fixture(scope="module")
def model(folder):
    return tiny_wan.load(folder, frames_per_chunk=3)


def test_it_is_what_the_door_promises(model):
    assert isinstance(model, CausalDiffuser) and model.latent and model.takes == "text"
    assert model.geometry.frames_per_chunk == 3 and model.geometry.tokens_per_chunk == 12
    assert not any(weight.requires_grad for weight in model.parameters())
    assert model.source.metadata["network"] == "wan"


def test_the_pass_over_a_whole_clip_is_the_stock_networks(model, network):
    expected = stock_pass(network, clip(), 1000 * SIGMA, TEXT)
    assert expected.abs().max() > 1
    assert_same(model.whole(clip(), SIGMA, TEXT), expected)


def test_the_state_dict_is_the_stock_networks(model, network):
    ours, theirs = model.state_dict(), network.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@CHUNKS
@REACHES
def test_teacher_forcing_in_one_pass_equals_cached_passes(folder, chunk, reach):
    model = tiny_wan.load(folder, frames_per_chunk=chunk, **reach)
    clean, noisy, sigma = clip(seed=1), clip(seed=2), levels(chunk)
    expected = chunk_by_chunk(model, clean, noisy, sigma)
    assert_same(model.teacher_forced(clean, noisy, sigma, TEXT), expected)


@CHUNKS
@REACHES
def test_a_masked_pass_equals_cached_passes(folder, chunk, reach):
    model = tiny_wan.load(folder, frames_per_chunk=chunk, **reach)
    clean, sigma = clip(), torch.zeros(2, FRAMES)
    assert_same(model.denoise_clip(clean, sigma, TEXT), chunk_by_chunk(model, clean, clean, sigma))


def test_a_window_changes_what_is_seen(folder):
    whole, bounded = (tiny_wan.load(folder, frames_per_chunk=1, **r) for r in ({}, {"window": 2}))
    sigma = torch.zeros(2, FRAMES)
    difference = (whole.denoise_clip(clip(), sigma, TEXT) - bounded.denoise_clip(clip(), sigma, TEXT)).abs()
    assert difference[:, :3].max() < 1e-6 and difference[:, 3:].amin(dim=1).max() > 1e-4


def test_a_noise_level_for_every_token_is_the_stock_networks_too(folder, network):
    model = tiny_wan.load(folder, frames_per_chunk=FRAMES)
    sigma = levels(1)
    timestep = (1000 * sigma).repeat_interleave(model.geometry.tokens_per_frame, dim=1)
    expected = stock_pass(network, clip(), timestep, TEXT)
    assert_same(model.denoise_clip(clip(), sigma, TEXT), expected)


def test_rotary_positions_go_on_from_chunk_to_chunk(model, network):
    x = torch.zeros(1, model.geometry.channels, FRAMES, 4, 4)
    cos, sin = network.rope(x)
    ours = model.rotation([3, 4, 5])
    tokens = slice(3 * 4, 6 * 4)
    assert torch.equal(ours[0], cos[0, tokens, 0])
    assert torch.equal(ours[1].abs(), sin[0, tokens, 0].abs())
    context = model.encode(clip()[:, :3], model.start(2, TEXT))
    displaced = dataclasses.replace(context, rope=model.rotation([0, 1, 2]))
    noisy = clip(seed=2)[:, 3:]
    assert largest(model.denoise(noisy, SIGMA, context), model.denoise(noisy, SIGMA, displaced)) > 1e-3


def test_only_distances_between_positions_count(model):
    start = model.start(2, TEXT)
    later = dataclasses.replace(start, rope=model.rotation([40, 41, 42]))
    x = clip()[:, :3]
    # The tables of rotation are those of float32.
    assert_same(model.denoise(x, SIGMA, start), model.denoise(x, SIGMA, later), rtol=1e-7)


def test_the_prompt_is_read_once_and_filled_up_with_zeros(model):
    prompts = TEXT.clone()
    context = model.start(2, prompts)
    before = model.denoise(clip()[:, :3], SIGMA, context)
    prompts.zero_()
    assert torch.equal(model.denoise(clip()[:, :3], SIGMA, context), before)
    short = prompt(tokens=2)
    filled = torch.cat([short, torch.zeros(2, 3, tiny_wan.WIDTH)], dim=1)
    answers = [model.denoise(clip()[:, :3], SIGMA, model.start(2, text)) for text in (short, filled, TEXT)]
    assert torch.equal(answers[0], answers[1]) and largest(answers[0], answers[2]) > 1e-3


def test_a_context_is_a_value(model):
    start = model.start(2, TEXT)
    first = model.encode(clip(seed=1)[:, :3], start)
    noisy = clip(seed=2)[:, :3]
    before = model.denoise(noisy, SIGMA, first)
    model.encode(clip(seed=3)[:, :3], first)
    other = model.encode(clip(seed=4)[:, :3], start)
    assert_same(model.denoise(noisy, SIGMA, first), before)
    assert largest(model.denoise(noisy, SIGMA, other), before) > 1e-3


def test_prepared_steps_are_plain_steps(model):
    context = model.encode(clip()[:, :3], model.start(2, TEXT))
    sigmas, x = sigma_grid(3, 5.0)[:-1], clip(seed=2)[:, 3:]
    for sigma, prepared in zip(sigmas, model.at_steps(sigmas, context), strict=True):
        plain = model.denoise(x, sigma.expand(2), context)
        assert_same(model.denoise(x, sigma.expand(2), prepared), plain)


def watched(model, *instruments, steps=2):
    """A teacher-forced rollout that all instruments hear of."""

    def on_pass(at):
        for instrument in instruments:
            instrument.on_pass(at)

    true = clip()
    return rollout(
        model, clip(seed=2), sigma_grid(steps), TEXT, given=true, teacher_forced=True, on_pass=on_pass
    )


@CHUNKS
def test_instruments_change_nothing_and_hear_each_pass_once(folder, chunk):
    model = tiny_wan.load(folder, frames_per_chunk=chunk)
    plain, seen = watched(model), []

    def sink(at, name, pattern):
        own = pattern.rows(0, pattern.queries)
        assert_same(own.sum(-1), torch.ones(own.shape[:-1]))
        mass, _ = pattern.statistics()
        assert_same(mass.sum(-1), torch.ones(mass.shape[:-1]))
        assert mass.shape[-1] == at.frame + 1
        seen.append((at, name))

    names = list(model.hook_dict)
    assert len(names) == 1 + 2 * 12
    with (
        Trace(model.hook_dict, names, lambda at, name, value: None) as trace,
        AttentionTap(model.attn_dict, "*", sink) as tap,
    ):
        assert torch.equal(watched(model, trace, tap), plain)
    chunks = FRAMES // chunk
    assert len(seen) == 2 * (2 * chunks + chunks - 1)


def test_patterns_explain_the_kernel_and_age_is_counted_from_the_first_frame(model):
    calls = []

    def keep(at, name, call):
        calls.append((at, call))
        return call.out

    with AttentionEdit(model.attn_dict, {"blocks.1.attn": keep}) as edit:
        watched(model, edit, steps=1)
    at, call = calls[-1]
    assert at.frame == 3
    assert call.key_age.tolist() == [3] * 4 + [2] * 4 + [1] * 4 + [0] * 12
    p = (call.q @ call.k.mT / call.q.shape[-1] ** 0.5).softmax(-1)
    assert_same(p @ call.v, call.out)


def test_a_window_and_a_sink_are_in_the_ages(folder):
    model = tiny_wan.load(folder, frames_per_chunk=1, window=2, sink=1)
    age = model.attn_dict["blocks.0.attn"].key_age
    assert age(5, 16).tolist() == [5] * 4 + [2] * 4 + [1] * 4 + [0] * 4


def spoilt(role, at, _name, value):
    return 1.5 * value + 0.1 * value.roll(1, dims=1) if at.role == role else value


@pytest.mark.slow
@pytest.mark.parametrize("role", ["denoise", "encode"])
def test_an_edit_at_every_point_changes_the_output(model, role):
    plain = watched(model, steps=1)
    for name in model.hook_dict:
        with Edit(model.hook_dict, {name: partial(spoilt, role)}) as edit:
            changed = largest(watched(model, edit, steps=1), plain)
        # The last block's output is not a part of what finished frames leave in memory.
        after_last_keys = ("hook_q", "hook_rot_q", "hook_z", "out", "resid_mid", "resid_post")
        if role == "encode" and name.startswith("blocks.1.") and name.endswith(after_last_keys):
            assert changed == 0, name
        else:
            assert changed > 1e-5, name


def test_a_later_frame_changes_nothing_earlier(folder):
    model = tiny_wan.load(folder, frames_per_chunk=1)
    clean, changed = clip(), clip()
    changed[:, 4] += 1
    sigma = levels(1)
    for ours, others in (
        (model.denoise_clip(clean, sigma, TEXT), model.denoise_clip(changed, sigma, TEXT)),
        (
            model.teacher_forced(clean, clean, sigma, TEXT),
            model.teacher_forced(changed, changed, sigma, TEXT),
        ),
    ):
        assert torch.equal(ours[:, :4], others[:, :4])
        assert all(largest(ours[:, frame], others[:, frame]) > 1e-4 for frame in (4, 5))


def test_cutting_the_past_fires(model):
    plain = watched(model, steps=1)
    with cut(model.attn_dict, "*") as edit:
        cut_off = watched(model, edit, steps=1)
    assert torch.equal(cut_off[:, :3], plain[:, :3]) and largest(cut_off[:, 3:], plain[:, 3:]) > 1e-3


def test_blocks_can_be_passed_over(model):
    layers, context = Layers(model), model.start(2, TEXT)
    assert layers.modules is not None and len(layers) == 2
    with layers.replace_outputs({0: lambda x: x, 1: lambda x: x}) as on_pass:
        on_pass(ForwardPass(0, 0, 0.5, "denoise"))
        bare = model.denoise(clip()[:, :3], SIGMA, context)
    modulations = model.modulations(1000 * SIGMA[:, None])
    assert torch.equal(bare, model.velocity(model.tokens(clip()[:, :3]), modulations))


def test_the_effect_of_a_mask_on_the_stock_pass_is_measured(model):
    drift = mask_drift(model, clip(), 0.5, lambda x, sigma: model.bidirectional(x, sigma, TEXT))
    assert (drift.relative_l2 > 1e-3).all()


def test_guidance_moves_away_from_the_null_text(model):
    x, context = clip()[:, :3], {"cond": TEXT, "uncond": torch.zeros_like(TEXT)}
    velocity = {name: model.denoise(x, SIGMA, model.start(2, text)) for name, text in context.items()}
    wrapper = guide(model, 3.0)
    expected = velocity["uncond"] + 3.0 * (velocity["cond"] - velocity["uncond"])
    assert_same(wrapper.denoise(x, SIGMA, wrapper.start(2, TEXT)), expected)
    assert torch.equal(model.denoise(x, SIGMA, model.start(2)), velocity["uncond"])


@pytest.mark.filterwarnings("ignore:The following device_map keys do not match")  # the root's own table
def test_blocks_on_disk_give_the_same(folder, tmp_path):
    from accelerate import dispatch_model

    plain, spread = (tiny_wan.load(folder, frames_per_chunk=3, window=3) for _ in range(2))
    modules = {name for name, _ in spread.named_children()} - {"blocks"}
    places = {name: "cpu" for name in modules if any(True for _ in getattr(spread, name).parameters())}
    places |= {"scale_shift_table": "cpu", "blocks.0": "cpu", "blocks.1": "disk"}
    dispatch_model(spread, places, main_device="cpu", offload_dir=tmp_path)
    assert spread.blocks[1].attn1.to_q.weight.is_meta and {"WanBlock"} == set(spread.no_split)
    assert_same(watched(spread), watched(plain))
    kept = []
    with Trace(spread.hook_dict, "blocks.*.attn.hook_z", lambda at, name, value: kept.append(name)) as trace:
        assert_same(watched(spread, trace), watched(plain))
    assert len(kept) == 2 * 5


def test_a_copy_and_a_shuffled_copy_are_networks_of_their_own(model):
    context, x = model.start(2, TEXT), clip()[:, :3]
    plain = model.denoise(x, SIGMA, context)
    twin, null = copy.deepcopy(model), copy_shuffled(model, seed=0)
    assert_same(twin.denoise(x, SIGMA, twin.start(2, TEXT)), plain)
    kept = []
    with Trace(twin.hook_dict, "*hook_q", lambda at, name, value: kept.append(name)):
        model.denoise(x, SIGMA, context)
    assert not kept
    assert largest(null.denoise(x, SIGMA, null.start(2, TEXT)), plain) > 0.1
    assert torch.equal(model.denoise(x, SIGMA, context), plain)


def test_the_description_serves_the_cost_arithmetic(model, network):
    shape = operations.shape_of(model.config)
    assert (shape.layers, shape.heads, shape.d_model, shape.text_tokens, shape.tokens) == (2, 2, 24, 5, 4)
    assert model.describe()["frames_per_chunk"] == 3
    assert WanConfig.from_values(model.describe()) == model.config


def test_transformer_lens_finds_the_same_names(model):
    _, cache = model.run_with_cache(clip()[:, :3], SIGMA, model.start(2, TEXT))
    assert set(cache) == set(model.hook_dict)


# Formats.


def test_names_of_wans_own_code_become_diffusers(network):
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    theirs = tiny_wan.original(network)
    ours = for_diffusers(theirs)
    assert "blocks.0.self_attn.q.weight" in theirs and "head.modulation" in theirs
    expected = convert_wan_transformer_to_diffusers(dict(theirs))
    assert ours.keys() == expected.keys() == network.state_dict().keys()
    assert all(ours[name] is tensor for name, tensor in expected.items())
    for norm in ("norm2", "norm3"):
        assert (f"blocks.0.{norm}.weight" in ours) == (norm == "norm2")


CAUSVID = Sampling(3, 8.0, True, levels=(1.0, 0.757, 0.522))


@pytest.mark.parametrize(
    ("place", "variant", "chunk", "sampling"),
    [
        ("framewise/ar_diffusion.pt", "diffusion-forcing", 1, Sampling(50, 5.0)),
        ("chunkwise/ar_diffusion.pt", "diffusion-forcing", 3, Sampling(50, 5.0)),
        ("framewise/causal_forcing.pt", "few-step", 1, Sampling(4, 5.0, True)),
        ("checkpoints/self_forcing_dmd.pt", "few-step", 3, Sampling(4, 5.0, True)),
        ("causal-forcing++/framewise-2step.pt", "few-step", 1, Sampling(2, 5.0, True)),
        ("CausVid/model.pt", "few-step", 3, CAUSVID),
        ("autoregressive_checkpoint/model.pt", "few-step", 3, CAUSVID),
        ("wan_causal_dmd_warp_4step_cfg2/model.pt", "few-step", 3, Sampling(4, 8.0, True)),
        ("bidirectional_checkpoint2/model.pt", "bidirectional", 1, CAUSVID),
        ("a/wan.pt", "bidirectional", 1, Sampling(50, 5.0)),
    ],
)
def test_files_of_causal_models_open(tmp_path, network, place, variant, chunk, sampling):
    path = tiny_wan.released(tmp_path / "x" / "y" / place, tiny_wan.original(network))
    model = tiny_wan.load(path, heads=2)
    expected = stock_pass(network, clip(), 1000 * SIGMA, TEXT)
    assert_same(model.whole(clip(), SIGMA, TEXT), expected)
    assumed = model.source.metadata["assumed"]
    assert (assumed["variant"], model.geometry.frames_per_chunk, model.sampling) == (variant, chunk, sampling)
    assert assumed["because"]


def test_what_is_asked_for_overrules_the_path(tmp_path, network):
    path = tiny_wan.released(tmp_path / "framewise" / "self_forcing_dmd.pt", tiny_wan.original(network))
    assert tiny_wan.load(path, heads=2).bidirectional is None
    assert tiny_wan.load(path, heads=2, variant="bidirectional").bidirectional is not None
    model = tiny_wan.load(path, heads=2, variant="diffusion-forcing", frames_per_chunk=2)
    assert model.sampling == Sampling(50, 5.0) and model.geometry.frames_per_chunk == 2
    assert model.source.metadata["assumed"]["because"]


def test_few_step_levels_are_the_authors(tmp_path, network):
    path = tiny_wan.released(tmp_path / "x" / "self_forcing_dmd.pt", tiny_wan.original(network))
    sampling = tiny_wan.load(path, heads=2).sampling
    warped = [5 * t / (1 + 4 * t) for t in (1.0, 0.75, 0.5, 0.25)]
    assert_same(sampling.grid[:-1], torch.tensor(warped))


def test_causvid_is_told_its_authors_timesteps(tmp_path, network, monkeypatch):
    path = tiny_wan.released(tmp_path / "CausVid" / "model.pt", tiny_wan.original(network))
    model = tiny_wan.load(path, heads=2, frames_per_chunk=1)
    rounded = [round(1000 * 8 * t / (1 + 7 * t)) for t in (1, 0.28, 0.12)]
    assert rounded == [1000, 757, 522], "of a grid of a thousand that shift 8 moves"
    told, plain = [], type(model).modulations
    monkeypatch.setattr(
        type(model), "modulations", lambda self, times: told.append(times) or plain(self, times)
    )
    rollout(model, clip(frames=1), model.sampling.grid, TEXT, renoise=0)
    assert told[0].tolist() == [pytest.approx(rounded)]
    assert model.source.metadata["assumed"]["sampling"]["levels"] == [1.0, 0.757, 0.522]


def test_safetensors_of_both_names_open(tmp_path, network):
    from safetensors.torch import save_file

    expected = stock_pass(network, clip(), 1000 * SIGMA, TEXT)
    for name, weights in {"wan": tiny_wan.original(network), "diffusers": network.state_dict()}.items():
        save_file(
            {key: tensor.contiguous() for key, tensor in weights.items()}, tmp_path / f"{name}.safetensors"
        )
        model = tiny_wan.load(tmp_path / f"{name}.safetensors", heads=2)
        assert_same(model.whole(clip(), SIGMA, TEXT), expected)


def test_either_expert_of_a_pipeline_opens(tmp_path, network):
    low = tiny_wan.stock(seed=1)
    path = tiny_wan.pipeline(
        tmp_path / "a14b", {"transformer": network, "transformer_2": low}, boundary_ratio=0.875
    )
    for expert, theirs in {"high": network, "low": low}.items():
        model = tiny_wan.load(path, expert=expert)
        expected = stock_pass(theirs, clip(), 1000 * SIGMA, TEXT)
        assert_same(model.whole(clip(), SIGMA, TEXT), expected)
        assert model.sampling == Sampling(50, 3.0)
        metadata = model.source.metadata
        assert (metadata["expert"], metadata["boundary"]) == (expert, 0.875)


def test_48_channels_are_as_good(tmp_path):
    network = tiny_wan.stock(in_channels=48, out_channels=48)
    model = tiny_wan.load(tiny_wan.folder(tmp_path / "5b", network))
    x = torch.randn(1, 2, 48, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = stock_pass(network, x, 1000 * SIGMA[:1], TEXT[:1])
    assert_same(model.whole(x, SIGMA[:1], TEXT[:1]), expected)
    whole = models.load(str(tmp_path / "5b"))
    assert (whole.geometry.height, whole.geometry.width) == (44, 80)


# What is refused.


def test_networks_that_read_images_are_refused(tmp_path):
    for name, changes in {
        "i2v": {"in_channels": 36, "out_channels": 4},
        "image": {"image_dim": 8, "added_kv_proj_dim": 24},
    }.items():
        path = tiny_wan.folder(tmp_path / name, tiny_wan.stock(**changes))
        with pytest.raises(ValueError, match=rf"{name}"):
            tiny_wan.load(path)


def test_incomplete_checkpoints_are_refused(tmp_path, network):
    weights = tiny_wan.original(network)
    del weights["blocks.1.ffn.2.bias"]
    with pytest.raises(ValueError, match=r"1 .*\['blocks.1.ffn.net.2.bias'\]"):
        tiny_wan.load(tiny_wan.released(tmp_path / "a" / "b.pt", weights), heads=2)
    del weights["patch_embedding.weight"]
    with pytest.raises(ValueError, match=r"c\.pt"):
        tiny_wan.load(tiny_wan.released(tmp_path / "a" / "c.pt", weights), heads=2)
    strange = tiny_wan.original(network) | {"blocks.0.camera.weight": torch.zeros(2)}
    with pytest.raises(ValueError, match=r"1 .*\['blocks.0.camera.weight'\]"):
        tiny_wan.load(tiny_wan.released(tmp_path / "a" / "d.pt", strange), heads=2)


def test_a_shallower_network_than_its_configuration_says_is_refused(tmp_path, network):
    folder = tiny_wan.folder(tmp_path / "a", network)
    text = (folder / "config.json").read_text().replace('"num_layers": 2', '"num_layers": 3')
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"blocks\.2\."):
        tiny_wan.load(folder)


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"variant": "fast"}, "'fast'.*auto"),
        ({"expert": "middle"}, "'middle'"),
        ({"heads": 5}, r"\b5 heads"),
        ({"heads": None}, r"heads .*\b128\b"),
        ({"heads": 2, "height": 5}, r"\b2\b"),
        ({"heads": 2, "frames_per_chunk": 0}, "frames_per_chunk .*1"),
        ({"heads": 2, "window": 0}, r"window .*\b1 "),
        ({"heads": 2, "colour": 1}, "colour"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(tmp_path, network, asked, complaint):
    path = tiny_wan.released(tmp_path / "a" / "b.pt", tiny_wan.original(network))
    with pytest.raises(ValueError, match=complaint) as error:
        tiny_wan.load(path, **asked)
    assert "\n" not in str(error.value)


def test_heads_that_the_configuration_says_cannot_be_told(folder):
    with pytest.raises(ValueError, match=r"\b2 .*\b3\b"):
        tiny_wan.load(folder, heads=3)


def test_a_wrong_call_says_what_was_expected(model):
    context = model.start(2, TEXT)
    for call, complaint in {
        "prompt": (lambda: model.start(3, TEXT), r"\[3, .*5 .*6\].*\(2, 5, 6\)"),
        "long": (lambda: model.start(2, prompt(tokens=6)), r"\b5 "),
        "width": (lambda: model.start(2, torch.zeros(2, 5, 7)), r"\(2, 5, 7\)"),
        "latents": (
            lambda: model.denoise(torch.zeros(2, 3, 4, 4, 6), SIGMA, context),
            r"\[batch frames 4 4 4\].*\(2, 3, 4, 4, 6\)",
        ),
        "chunk": (lambda: model.encode(clip()[:, :2], context), r"\b3 .*\b2\b"),
        "clip": (lambda: model.denoise_clip(clip()[:, :4], levels(1)[:, :4], TEXT), r"\b4 "),
        "frames": (lambda: model.rotation([64]), r"\b64 .*\b64\b"),
    }.values():
        with pytest.raises(ValueError, match=complaint):
            call()


@pytest.mark.parametrize(("width", "heads", "inner", "layers"), [(1536, 12, 8960, 30), (5120, 40, 13824, 40)])
def test_the_real_sizes_are_read_off_the_shapes(width, heads, inner, layers):
    sizes = {"num_attention_heads": heads, "attention_head_dim": 128, "ffn_dim": inner, "num_layers": layers}
    sizes |= {"in_channels": 16, "out_channels": 16, "text_dim": 4096, "freq_dim": 256}
    with torch.device("meta"):
        weights = tiny_wan.original(tiny_wan.WanTransformer3DModel(**sizes))
    said = wan.DEFAULTS | {"variant": "bidirectional"}
    config = config_of(Checkpoint(Path("a.pt"), for_diffusers(weights)), said, 1, is_causal=False)
    assert sizes.items() <= config.for_diffusers().items()
    assert (config.height, config.width, config.text_tokens) == (60, 104, 512)
    assert config.rope_axes == (44, 42, 42) and config.geometry(layers).tokens_per_frame == 1560


def test_the_keys_of_a_layer_lie_where_the_layer_is():
    storage = KVStorage(2)
    elsewhere = torch.zeros(1, 2, 4, 6, device="meta", dtype=torch.bfloat16)
    cache = KVCache(storage)
    cache.with_current(1, elsewhere, elsewhere)  # the first layer was passed over
    here = torch.randn(1, 2, 4, 6)
    keys, _ = cache.with_current(0, here, here)
    assert torch.equal(keys, here)
    for tensors in (storage.keys, storage.values):
        assert [tensor.device.type for tensor in tensors] == ["cpu", "meta"]
        assert [tensor.dtype for tensor in tensors] == [here.dtype, torch.bfloat16]
    later = cache.append(4)
    storage.reserve(here, 32)
    assert [tensor.shape[2] for tensor in storage.keys] == [32, 32]
    assert torch.equal(later.with_current(0, here, here)[0], torch.cat([here, here], dim=2))
    assert storage.keys[1].device.type == "meta"
