"""Networks in float32 and bfloat16: within what rounding allows of float64, and each part in its own type."""

import pytest
import tiny
import tiny_scd
import tiny_wan
import torch
import twins
from bounds import assert_same, rounding
from precision import double_precision
from tiny_wan import SIGMA, TEXT, clip, levels, prompt, stock_pass

from framelens import models
from framelens.diffusion.sampler import rollout
from framelens.diffusion.schedule import sigma_grid

HALF = [torch.bfloat16, torch.float16]
ACTIONS = torch.tensor([[0, 1, 2, 0], [0, 2, 2, 1]])


def condition(model, frames):
    """Something that the model takes, for one clip."""
    null = model.null_condition
    if model.takes == "text":
        return tiny.draw(1, *null.shape, seed=9)
    if model.takes == "actions" and isinstance(null, torch.Tensor):
        return tiny.draw(1, frames, *null.shape, seed=9)
    return {"actions": torch.zeros(1, frames, dtype=torch.long), "labels": torch.tensor([1])}.get(model.takes)


def velocity(model, dtype):
    """Its velocity of the third chunk, after two in memory."""
    g = model.geometry
    chunks = tiny.draw(1, 3 * g.frames_per_chunk, g.channels, g.height, g.width, seed=4).to(dtype)
    cond = condition(model, 3 * g.frames_per_chunk)
    context = model.start(1, cond.to(dtype) if cond is not None and cond.is_floating_point() else cond)
    *past, x = chunks.split(g.frames_per_chunk, dim=1)
    for chunk in past:
        context = model.encode(chunk, context)
    return model.denoise(x, torch.tensor([0.6]), context)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("name", twins.FAMILIES)
def test_rounding_alone_parts_a_network_from_its_float64(name, tmp_path):
    path, said = twins.twin(name, tmp_path)
    with double_precision():
        exact = velocity(models.load(path, **said).double(), torch.float64)
    for dtype in (torch.float32, torch.bfloat16):
        model = models.load(path, dtype=str(dtype).removeprefix("torch."), **said)
        g = model.geometry
        bound = rounding(dtype, g.d_model, 2 * g.layers, exact)
        assert_same(velocity(model, dtype), exact, bound=bound)


@pytest.mark.parametrize("dtype", [torch.float32, *HALF], ids=str)
def test_a_video_stays_in_its_type_and_near_that_of_float64(dtype):
    with double_precision():
        exact = rollout(tiny.model(conditions=3), tiny.draw(2, 2, 3, 8, 8), sigma_grid(2), ACTIONS[:, :2])
    model = tiny.model(conditions=3).to(dtype)
    video = rollout(model, tiny.draw(2, 2, 3, 8, 8).to(dtype), sigma_grid(2), ACTIONS[:, :2])
    assert video.dtype == model.dtype == dtype
    passes = 2 + 1 + 2
    bound = rounding(dtype, 16, passes * 2, exact)
    assert_same(video, exact, bound=bound)


# In parallel and by cached passes


def sequence(model, clean, noisy, sigma, cond):
    context, velocities = model.start(len(clean), cond), []
    for frame in range(clean.shape[1]):
        now = slice(frame, frame + 1)
        velocities.append(model.denoise(noisy[:, now], sigma[:, frame], context))
        context = model.encode(clean[:, now], context)
    return torch.cat(velocities, dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("way", [None, *tiny_scd.WAYS])
def test_cached_passes_and_the_parallel_one_are_parted_by_rounding_alone(way, dtype):
    model = (tiny.model(conditions=3) if way is None else tiny_scd.model(way)).to(dtype)
    clean, noisy = (tiny.draw(2, 4, 3, 8, 8, seed=seed).to(dtype) for seed in (0, 1))
    sigma = levels(1)[:, :4]
    together = model.teacher_forced(clean, noisy, sigma, ACTIONS)
    bound = rounding(dtype, 16, 2 if way is None else 4, together)
    assert_same(sequence(model, clean, noisy, sigma, ACTIONS), together, bound=bound)


# Wan's and SkyReels's networks, beside diffusers'


@pytest.fixture(scope="module")
def network():
    return tiny_wan.stock()


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory):
    return tiny_wan.folder(tmp_path_factory.mktemp("wan") / "tiny", network)


def test_bfloat16_is_diffusers_bfloat16(folder, network):
    theirs = type(network).from_pretrained(folder, torch_dtype=torch.bfloat16)
    ours = tiny_wan.load(folder, frames_per_chunk=3, dtype="bfloat16")
    kept = {name for name, tensor in theirs.state_dict().items() if tensor.dtype == torch.float32}
    assert {name for name, tensor in ours.state_dict().items() if tensor.dtype == torch.float32} == kept
    assert any("time_embedder" in name for name in kept) and ours.rope.freqs_cos.dtype == torch.float32
    x, text = clip().bfloat16(), TEXT.bfloat16()
    expected = stock_pass(theirs, x, 1000 * SIGMA, text)
    bound = rounding(torch.bfloat16, 24, 2, expected)
    assert_same(ours.whole(x, SIGMA, text), expected, bound=bound)
    exact = stock_pass(network, clip(), 1000 * SIGMA, TEXT)
    video = rollout(ours, clip(seed=2), sigma_grid(2), TEXT)
    assert video.isfinite().all()
    assert_same(ours.whole(clip(), SIGMA, TEXT), exact, bound=bound)


def test_bfloat16_of_skyreels_keeps_what_diffusers_keeps(tmp_path):
    network = tiny_wan.skyreels(num_frame_per_block=3)
    folder, one = tiny_wan.folder(tmp_path / "tiny", network), prompt(1)
    theirs = type(network).from_pretrained(folder, torch_dtype=torch.bfloat16)
    ours = tiny_wan.load(folder, dtype="bfloat16")
    kept = {name for name, tensor in theirs.state_dict().items() if tensor.dtype == torch.float32}
    assert {name for name, tensor in ours.state_dict().items() if tensor.dtype == torch.float32} == kept
    sigma, x, text = levels(3, batch=1), clip(batch=1).bfloat16(), one.bfloat16()
    expected = stock_pass(theirs, x, 1000 * sigma, text, enable_diffusion_forcing=True, fps=[1])
    bound = rounding(torch.bfloat16, 24, 2, expected)
    assert_same(ours.denoise_clip(x, sigma, text), expected, bound=bound)


def test_a_network_half_stored_in_half_precision_opens(tmp_path, network):
    weights = {name: tensor.bfloat16() for name, tensor in tiny_wan.original(network).items()}
    model = tiny_wan.load(tiny_wan.released(tmp_path / "a" / "b.pt", weights), heads=2)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    half = tiny_wan.load(tmp_path / "a" / "b.pt", heads=2, dtype="bfloat16")
    assert half.blocks[0].scale_shift_table.dtype == torch.float32
    assert half.whole(clip(), SIGMA, TEXT).isfinite().all()
