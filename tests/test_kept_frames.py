"""Frames kept under interventions are those that were generated; films are rollouts under the same cut."""

from dataclasses import replace

import chunked_twin
import counted
import numpy as np
import pytest
import torch
from bounds import assert_same, rounding

from framelens.diffusion.sampler import rollout
from framelens.hooks import cut as cut_attention
from framelens.probes.chunk import chunk_probe, cross_frame, kept_frames, partial_passes
from framelens.probes.chunk.cross_frame import STORED
from framelens.probes.chunk.kept_frames import CLIPS, MOST_BYTES, as_stored
from framelens.probes.chunk.partial_passes import Partial, all_but
from framelens.probes.experiments import cut, cut_films, leave_one_out, reuse
from framelens.probes.run.costs import Evaluations, shared_evaluations

BOUND = rounding(torch.float32, 64, 8)
HALF_A_LEVEL = 0.51 / 127.5
KINDS = ("dense", "chunked")


@pytest.fixture(scope="module", params=KINDS)
def probed_clip(request):
    with counted.few():
        yield counted.probed(counted.NETWORKS[request.param](), counted.settings())[0]


def values_of(stored):
    """Stored frames in the model's own values."""
    return stored.values if stored.dtype == np.float32 else stored.values / 127.5 - 1


def assert_is(stored, frames):
    """The stored frame is that one, but for the rounding to bytes of pixels."""
    frames = frames if stored.dtype == np.float32 else frames.clamp(-1, 1)
    assert np.abs(values_of(stored) - frames.numpy()).max() <= HALF_A_LEVEL


def after(probed_clip, layer):
    """The attention modules from that layer on."""
    names = list(probed_clip.networks["trained"].attn_dict)
    return [name for name in names if int(name.split(".")[-2]) >= layer]


def test_frames_cut_from_a_layer_on_are_the_rollouts_under_the_cut(probed_clip):
    kept = cut.measure(probed_clip)["cut_frames"]
    probe, model = probed_clip.chunk_probe(), probed_clip.networks["trained"]
    assert kept.layer.values.tolist() == [0, 1, 2] and kept.attrs["frame"] == counted.FRAMES - 1
    for layer in (0, 2):
        with cut_attention(model.attn_dict, after(probed_clip, layer)) as edit:
            video = rollout(
                model,
                probed_clip.noise("chunk_probe"),
                probe.grid,
                probed_clip.clip.cond,
                probed_clip.clip.video,
                teacher_forced=True,
                denoised_frames={probe.frame},
                on_pass=edit.on_pass,
            )
        assert_is(kept.generated.sel(layer=layer)[0], video[0, -1])
    assert_is(kept.plain[0], probe.sample[0, -1])
    assert_is(kept.truth[0], probed_clip.clip.video[0, -1])
    assert np.abs(values_of(kept.generated[0, 0]) - values_of(kept.plain[0])).max() > 2 * HALF_A_LEVEL


def test_frames_without_a_layer_and_with_the_past_fetched_once_are_those_generated(probed_clip):
    probe = probed_clip.chunk_probe()
    left_out = leave_one_out.measure(probed_clip)["leave_one_out_frames"]
    once = reuse.measure(probed_clip)["reuse_frames"]
    stored = probe.features(0).cross
    assert once.attrs["start"] == 0
    for layer in (0, 2):
        without = partial_passes.generate(probe, [Partial(all_but(probe, [layer]))], probe.noise)
        assert_is(left_out.generated.sel(layer=layer)[0], without[0, 0, -1])
        modes = cross_frame.through(probe, layer, STORED)[None]
        frames = cross_frame.generate(probe, modes, stored, 1)
        assert_is(once.generated.sel(layer=layer)[0], frames[0, 0, -1])


def test_nothing_is_kept_of_later_clips(probed_clip):
    for index in (CLIPS - 1, CLIPS):
        later = replace(probed_clip, index=index)
        assert ("leave_one_out_frames" in leave_one_out.measure(later)) == (index < CLIPS)


def test_where_all_layers_take_too_many_bytes_the_first_and_the_last_are_kept(probed_clip, monkeypatch):
    size = as_stored(probed_clip.clip.video[0, -1], probed_clip.chunk_probe().scale.is_latent).nbytes
    assert 3 * size < MOST_BYTES
    monkeypatch.setattr(kept_frames, "MOST_BYTES", 2 * size)
    kept = leave_one_out.measure(probed_clip)["leave_one_out_frames"]
    assert kept.layer.values.tolist() == [0, 2] and kept.generated.nbytes == 2 * size


def test_latents_are_kept_as_they_are():
    latents = 3 * torch.randn(2, 4, 4)
    assert (as_stored(latents, True) == latents.numpy()).all()
    assert as_stored(torch.tensor([-2.0, -1, 0, 1, 2]), False).tolist() == [0, 0, 128, 255, 255]


# Films


@pytest.mark.parametrize("changes", [{}, {"renoise": True}, {"guidance": 1.5}])
def test_a_film_is_the_free_running_rollout_under_its_cut(changes):
    with counted.few():
        about = counted.settings(**changes)
        probed_clip, _ = counted.probed(chunked_twin.model(layers=3), about)
        films = cut_films.measure(probed_clip)["cut_films"]
    model, context = probed_clip.networks["trained"], about.context
    assert films.layer.values.tolist() == [0, 1, 2]
    assert films.frame.values.tolist() == list(range(context, counted.FRAMES))
    for layer in (0, 2):
        with cut_attention(model.attn_dict, after(probed_clip, layer)) as edit:
            video = rollout(
                probed_clip.sampler(model),
                probed_clip.noise("rollouts"),
                probed_clip.sigmas,
                probed_clip.clip.cond,
                probed_clip.clip.video[:, :context],
                on_pass=edit.on_pass,
                renoise=probed_clip.renoise_seed("rollouts"),
            )
        assert_same(films.video.sel(layer=layer)[0], video[0, context:].numpy(), bound=BOUND)


def test_large_networks_have_no_films_unless_they_are_requested(monkeypatch):
    monkeypatch.setattr(chunk_probe, "TOKENS", 1)
    with counted.few():
        probed_clip, run = counted.probed(counted.dense(), counted.settings())
        assert cut_films.measure(probed_clip) == {} and cut_films.evaluations(run).denoising == 0
        asked = counted.settings(experiments=("cut_films",))
        probed_clip, run = counted.probed(counted.dense(), asked)
        claim = cut_films.evaluations(run)
        shared = shared_evaluations(claim.chunk, run)
        with counted.counted(dict(probed_clip.networks)) as counts:
            films = cut_films.measure(probed_clip)
    assert films["cut_films"].sizes["layer"] == 3
    assert counts["denoising"] == claim.denoising + shared.denoising > 0
    assert counts["encoding"] == claim.encoding + shared.encoding


def test_films_are_of_the_first_clip():
    with counted.few():
        probed_clip, _ = counted.probed(counted.dense(), counted.settings())
        assert cut_films.measure(replace(probed_clip, index=1)) == {}


def test_what_is_measured_of_the_first_clips_is_spread_over_all():
    claim = Evaluations(1200, 60, clips=2)
    assert claim.per_clip(8) == (300, 15) and claim.per_clip(1) == (1200, 60)
    assert replace(claim, clips=None).per_clip(8) == (1200, 60)
