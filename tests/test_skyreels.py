"""SkyReels-V2: our passes chunk by chunk are the stock network's block-causal pass, its rate and all."""

import pytest
import tiny_wan
import torch
from bounds import assert_same
from tiny_wan import FRAMES, SIGMA, TEXT, chunk_by_chunk, clip, largest, levels, prompt, stock_pass

from framelens.diffusion.sampler import rollout
from framelens.diffusion.schedule import Sampling, sigma_grid
from framelens.hooks.attention import AttentionTap
from framelens.hooks.trace import Trace
from framelens.models import skyreels, wan

pytestmark = pytest.mark.usefixtures("all_float64")

ONE = prompt(1)
"""The stock network adds the frame rate right for one clip only."""


@pytest.fixture(scope="module")
def blocked(tmp_path_factory):
    """A stock network that is causal by blocks of 3, and its folder."""
    network = tiny_wan.skyreels(num_frame_per_block=3)
    return network, tiny_wan.folder(tmp_path_factory.mktemp("skyreels") / "tiny", network)


@pytest.mark.parametrize("fps", [16, 24])
def test_a_masked_pass_is_the_stock_networks_block_causal_one(blocked, fps):
    network, folder = blocked
    model, sigma = tiny_wan.load(folder, fps=fps), levels(1, batch=1)
    assert model.geometry.frames_per_chunk == 3
    expected = stock_pass(
        network, clip(batch=1), 1000 * sigma, ONE, enable_diffusion_forcing=True, fps=[int(fps == 24)]
    )
    assert expected.abs().max() > 1
    assert_same(model.denoise_clip(clip(batch=1), sigma, ONE), expected)


def test_the_frame_rate_counts(blocked):
    slow, fast = (tiny_wan.load(blocked[1], fps=fps) for fps in (16, 24))
    assert largest(slow.whole(clip(), SIGMA, TEXT), fast.whole(clip(), SIGMA, TEXT)) > 1e-3


def test_cached_passes_are_the_stock_networks_block_causal_one(blocked):
    network, folder = blocked
    model, clean, noisy = tiny_wan.load(folder), clip(batch=1, seed=1), clip(batch=1, seed=2)
    sigma = levels(3, batch=1)
    ours = chunk_by_chunk(model, clean, noisy, sigma, ONE)
    for first in range(0, FRAMES, 3):
        last = slice(first, first + 3)
        x, level = torch.cat([clean[:, :first], noisy[:, last]], dim=1), sigma[:, : first + 3].clone()
        level[:, :first] = 0
        expected = stock_pass(network, x, 1000 * level, ONE, enable_diffusion_forcing=True, fps=[1])
        assert_same(ours[:, last], expected[:, last])


def test_teacher_forcing_in_one_pass_equals_cached_passes(blocked):
    model, sigma = tiny_wan.load(blocked[1], frames_per_chunk=2, window=2), levels(2)
    clean, noisy = clip(seed=1), clip(seed=2)
    expected = chunk_by_chunk(model, clean, noisy, sigma)
    assert_same(model.teacher_forced(clean, noisy, sigma, TEXT), expected)


@pytest.mark.parametrize("is_told", [True, False])
def test_with_one_frame_per_block_the_stock_network_is_bidirectional(tmp_path, is_told):
    network = tiny_wan.skyreels(inject_sample_info=is_told)
    model = tiny_wan.load(tiny_wan.folder(tmp_path / "a", network))
    rate = {"fps": [1, 1]} if is_told else {}
    expected = stock_pass(network, clip(), 1000 * SIGMA, TEXT, **rate)
    assert model.fps == (24 if is_told else None)
    assert model.geometry.frames_per_chunk == 1
    assert_same(model.bidirectional(clip(), SIGMA, TEXT), expected)
    changed = clip()
    changed[:, -1] += 1
    other = stock_pass(network, changed, 1000 * SIGMA, TEXT, **rate)
    assert largest(other[:, 0], expected[:, 0]) > 1e-3  # it sees later frames, and we do not
    sigma = SIGMA[:, None].expand(2, FRAMES)
    ours = (model.denoise_clip(x, sigma, TEXT)[:, :-1] for x in (clip(), changed))
    assert torch.equal(*ours)


def test_a_causal_one_has_no_bidirectional_pass(blocked):
    assert tiny_wan.load(blocked[1]).bidirectional is None


def test_instruments_hear_each_pass_once(blocked):
    model, names, heard = tiny_wan.load(blocked[1]), [], []
    with (
        Trace(model.hook_dict, list(model.hook_dict), lambda at, name, value: names.append(name)) as trace,
        AttentionTap(model.attn_dict, "*", lambda at, name, pattern: heard.append(name)) as tap,
    ):

        def on_pass(at):
            trace.on_pass(at)
            tap.on_pass(at)

        watched = rollout(model, clip(), sigma_grid(2), TEXT, on_pass=on_pass)
    assert torch.equal(rollout(model, clip(), sigma_grid(2), TEXT), watched)
    assert len(heard) == 2 * 5 and len(names) == len(model.hook_dict) * 5


def test_a_pipelines_scheduler_says_the_shift(tmp_path):
    network = tiny_wan.skyreels()
    path = tiny_wan.pipeline(tmp_path / "df", {"transformer": network}, flow_shift=6.0)
    model = tiny_wan.load(path)
    assert model.sampling == Sampling(50, 6.0) and model.source.metadata["network"] == "skyreels"
    assert model.source.metadata["assumed"]["fps"] == 24


def test_files_with_the_authors_names_are_told_from_wans(tmp_path):
    network = tiny_wan.skyreels()
    weights = tiny_wan.original(network)
    assert "fps_projection.0.weight" in weights
    assert skyreels.recognises(weights) and not wan.recognises(weights)
    plain = tiny_wan.original(tiny_wan.stock())
    assert wan.recognises(plain) and not skyreels.recognises(plain)
    model = tiny_wan.load(tiny_wan.released(tmp_path / "a" / "b.pt", weights), heads=2)
    expected = stock_pass(network, clip(), 1000 * SIGMA, TEXT, fps=[1, 1])
    assert_same(model.whole(clip(), SIGMA, TEXT), expected)


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"fps": 25}, "16 .*24 .*25"),
        ({"frames_per_chunk": 0}, "frames_per_chunk .*1"),
        ({"variant": "few-step"}, "variant"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(blocked, asked, complaint):
    with pytest.raises(ValueError, match=complaint) as error:
        tiny_wan.load(blocked[1], **asked)
    assert "\n" not in str(error.value)
