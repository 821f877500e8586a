"""Latents are scored as pixels where a VAE is given, and a VAE that decodes frames together is refused."""

import json

import numpy as np
import pytest
import tiny
import tiny_vae
import torch

from framelens.training import evaluate
from framelens.training.scores import FIRST_CLIP
from framelens.videos import latents
from framelens.videos.scores import psnr
from framelens.videos.stored import open_stored

pytestmark = pytest.mark.slow

COPY = "PSNR of the copy of the last frame (dB)"
SIZES = ["--clips", "2", "--steps", "1", "--context", "2", "--predict", "2"]


@pytest.fixture
def clips(tmp_path):
    """Latents of 8 channels, of which two clips are kept for validation."""
    video = np.random.default_rng(0).normal(size=(20, 4, 8, 8, 8)).astype(np.float32)
    return latents.write(tmp_path / "clips.safetensors", video)


@pytest.fixture
def model(clips, tmp_path):
    return str(tiny.checkpoint(tmp_path / "model.safetensors", tiny.model(channels=8), str(clips), 4))


def scores(capsys, *arguments):
    assert evaluate.main([*arguments, *SIZES]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_latents_are_decoded_before_they_are_scored(model, clips, tmp_path, capsys):
    vae, out = tiny_vae.dc(), tmp_path / "scores.json"
    vae.save_pretrained(tmp_path / "vae")
    plain = scores(capsys, "--model", model)
    pixels = scores(capsys, "--model", model, "--vae", str(tmp_path / "vae"), "--out", str(out))
    assert plain.keys() == pixels.keys() and plain[COPY] != pixels[COPY]
    true = open_stored(clips).clips([FIRST_CLIP, FIRST_CLIP + 1], 4).video
    frames = torch.from_numpy(true).flatten(0, 1) / vae.config.scaling_factor
    decoded = vae.decode(frames).sample.clamp(-1, 1).numpy().reshape(2, 4, 3, 32, 32)
    expected = psnr(decoded[:, 1:-1], decoded[:, 2:]).mean()
    assert pixels[COPY] == pytest.approx(expected, abs=1e-3)
    held = json.loads(out.read_text())["vae"]
    assert held["kind"] == "AutoencoderDC" and list(held["sha256"]) == ["diffusion_pytorch_model.safetensors"]


def test_a_vae_that_decodes_frames_together_is_refused_in_one_line(model, tmp_path, capsys):
    tiny_vae.wan().save_pretrained(tmp_path / "vae")
    assert evaluate.main(["--model", model, *SIZES, "--vae", str(tmp_path / "vae")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "makes 4 frames of a latent" in line and "AutoencoderDC" in line
