"""Latents: as diffusers makes them, normalised as models take them; streams equal the whole; refusals."""

import json

import pytest
import tiny_vae
import torch
from bounds import assert_same, rounding
from tiny_vae import WAN, WAN22, dc, video, wan

from framelens.models.encoders.vae import open_vae


def stock_latents(network, x):
    """As a diffusers pipeline for Wan prepares them."""
    z = network.encode(x.transpose(1, 2)).latent_dist.mode()
    mean, std = (
        torch.tensor(values).view(1, -1, 1, 1, 1)
        for values in (network.config.latents_mean, network.config.latents_std)
    )
    return ((z - mean) / std).transpose(1, 2)


def stock_pixels(network, latents):
    mean, std = (
        torch.tensor(values).view(1, -1, 1, 1, 1)
        for values in (network.config.latents_mean, network.config.latents_std)
    )
    return network.decode(latents.transpose(1, 2) * std + mean).sample.transpose(1, 2)


def same(found, expected):
    """But for rounding in float32, through some 40 convolutions of 3 x 3 x 3 over up to 8 channels."""
    assert_same(found, expected, bound=rounding(torch.float32, 27 * 8, 40 // 8, expected))


@pytest.fixture(params=[WAN, WAN22], ids=["2.1", "2.2"])
def opened(request, tmp_path):
    network = wan(**request.param)
    network.save_pretrained(tmp_path / "vae")
    return network, open_vae(str(tmp_path / "vae"))


def test_wan_is_as_diffusers_has_it_and_normalised(opened):
    network, vae = opened
    size = 2 * vae.spatial
    x = video(9, size, size, batch=2)
    latents = vae.encode(x)
    assert latents.shape == (2, 3, 4, 2, 2) and vae.frames_of(3) == 9
    assert latents.std() > 0.05
    same(latents, stock_latents(network, x))
    pixels = vae.decode(latents)
    assert pixels.shape == x.shape and pixels.abs().max() <= 1
    same(pixels, stock_pixels(network, latents))


def test_wan_streams_equal_the_whole(opened):
    network, vae = opened
    x = video(9, 2 * vae.spatial, vae.spatial)
    latents = stock_latents(network, x)
    pieces = list(vae.stream_encode(x))
    assert [piece.shape[1] for piece in pieces] == [1, 1, 1]
    same(torch.cat(pieces, 1), latents)
    frames = list(vae.stream(latents))
    assert [piece.shape[1] for piece in frames] == [1, 4, 4]
    same(torch.cat(frames, 1), stock_pixels(network, latents))


def test_two_streams_side_by_side_do_not_meet(opened):
    _, vae = opened
    one, other = (vae.encode(video(9, vae.spatial, vae.spatial, seed=seed)) for seed in (4, 5))
    together = list(zip(vae.stream(one), vae.stream(other), strict=True))
    same(torch.cat([a for a, _ in together], 1), vae.decode(one))
    same(torch.cat([b for _, b in together], 1), vae.decode(other))


def test_decoding_is_causal(opened):
    _, vae = opened
    latents = vae.encode(video(9, vae.spatial, vae.spatial))
    changed = latents.clone()
    changed[:, 2] += 1
    before, after = vae.decode(latents), vae.decode(changed)
    assert torch.equal(before[:, :5], after[:, :5]) and not torch.equal(before[:, 5:], after[:, 5:])


def test_dc_takes_each_frame_for_itself_and_scales(tmp_path):
    network = dc()
    network.save_pretrained(tmp_path)
    vae, x = open_vae(str(tmp_path)), video(3, batch=2)
    latents = vae.encode(x)
    assert latents.shape == (2, 3, 8, 4, 6) and vae.frames_of(3) == 3
    expected = network.encode(x.flatten(0, 1)).latent * 0.2889
    same(latents.flatten(0, 1), expected)
    pixels = network.decode(expected / 0.2889).sample.clamp(-1, 1)
    same(vae.decode(latents).flatten(0, 1), pixels)
    same(torch.cat(list(vae.stream(latents)), 1), vae.decode(latents))


@pytest.mark.parametrize("layers", [[0, 2, 1], [0, 1, 2]])
def test_fars_weights_tell_their_configuration(tmp_path, layers):
    network = dc(encoder_layers_per_block=layers)
    torch.save(network.state_dict(), tmp_path / "DCAE.pth")
    vae, x = open_vae(str(tmp_path / "DCAE.pth")), video(2)
    assert (vae.spatial, vae.temporal, vae.channels) == (4, 1, 8)
    assert list(vae.network.config.encoder_layers_per_block) == layers
    expected = network.encode(x[0]).latent * 0.2889
    same(vae.encode(x)[0], expected)


def test_a_pipeline_folder_is_entered_and_described(tmp_path):
    tiny_vae.save_pipeline(tmp_path)
    said = open_vae(str(tmp_path)).describe()
    assert said["class"] == "AutoencoderKLWan" and said["name"] == str(tmp_path)
    assert (said["channels"], said["spatial"], said["temporal"]) == (4, 8, 4)


def test_half_precision_stays_close(tmp_path):
    wan().save_pretrained(tmp_path)
    x = video(5)
    exact, rough = (open_vae(str(tmp_path), dtype=dtype).encode(x) for dtype in ("float32", "bfloat16"))
    assert rough.dtype == torch.float32
    assert 0 < (exact - rough).abs().max() < 0.1 * exact.abs().max()


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((9, 16, 20), "8.*16x20.*16x16"),
        ((8, 16, 24), r"4.*\b8\b.*\b5 .*\b9 "),
    ],
)
def test_odd_sizes_are_refused_with_ones_that_would_do(tmp_path, shape, said):
    wan().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=said):
        open_vae(str(tmp_path)).encode(video(*shape))


def test_latents_of_another_width_are_refused(tmp_path):
    wan().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"\b4 .*\b16"):
        open_vae(str(tmp_path)).stream(torch.zeros(1, 1, 16, 2, 2))


def edited(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: edited(f, _class_name="AutoencoderKLMagvit"), "AutoencoderKLMagvit"),
        (lambda f: edited(f, base_dim=4), r"\(\d+"),
        (lambda f: edited(f, num_res_blocks=2), "resnets"),
        (lambda f: edited(f, latents_mean=[0.0] * 16), r"\[16, 4\].*\b4\b"),
        (lambda f: (f / "config.json").write_text("{"), "config.json"),
        (lambda f: (f / "config.json").unlink(), "config.json"),
        (lambda f: (f / "diffusion_pytorch_model.safetensors").unlink(), "vae|safetensors"),
    ],
)
def test_spoilt_folders_are_refused_in_one_line(tmp_path, spoil, said):
    wan().save_pretrained(tmp_path)
    spoil(tmp_path)
    with pytest.raises((ValueError, OSError), match=said) as caught:
        open_vae(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"), [("encoder.conv1.weight", "Wan"), ("x", "encoder.conv_in.conv.weight")]
)
def test_other_files_are_refused(tmp_path, name, said):
    torch.save({name: torch.zeros(2)}, tmp_path / "vae.pth")
    with pytest.raises(ValueError, match=said):
        open_vae(str(tmp_path / "vae.pth"))


def test_a_name_that_is_nowhere_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        open_vae(str(tmp_path / "nothing"))
