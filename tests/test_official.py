"""Files of the authors' code: the same velocities as theirs, and one line on what cannot be read."""

import argparse
import copy
import os
import pickle
import re

import diffusers
import official_reference as reference
import pytest
import tiny
import torch
from bounds import assert_same
from precision import double_precision
from safetensors.torch import save_file
from tiny_official import CHANNELS, far_long_weights, far_weights, scd_weights

from framelens import models
from framelens.diffusion.sampler import rollout
from framelens.diffusion.schedule import sigma_grid
from framelens.models import official
from framelens.models.loading.checkpoint import Checkpoint, write
from framelens.models.parts.released import SAMPLING
from framelens.probes.__main__ import main as probes_main

COMBINES = {
    "token_concat": "token_concat",
    "token_concat_with_proj": "token_concat_projected",
    "concat": "channel_concat",
    "add": "add",
}
"""The fusions as the released code calls them, and as we do."""
HEIGHT, WIDTH, FRAMES = 2, 3, 3
ACTIONS = [0, 3, 1, 2]
CONDITIONS = {None: None, "action": ACTIONS, "label": 2}
SIGMA = 0.375


@pytest.fixture
def file(tmp_path):
    """Writes what a PyTorch file should hold; gives its path."""

    def write(held, name="ema.pth", **settings):
        torch.save(held, tmp_path / name, **settings)
        return str(tmp_path / name)

    return write


def videos(patch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Past frames [f c h w] and a noisy one [c h w]."""
    drawn = tiny.draw(FRAMES + 1, CHANNELS, patch * HEIGHT, patch * WIDTH)
    return drawn[:FRAMES], drawn[FRAMES]


def velocity(network, past, noisy, cond):
    """Ours, frame by frame through the cache, in float64."""
    cond = None if cond is None else torch.tensor([cond])
    with double_precision():
        network = copy.deepcopy(network).double()
        context = network.start(1, cond)
        for frame in past.double():
            context = network.encode(frame[None, None], context)
        return network.denoise(noisy[None, None].double(), torch.tensor([SIGMA]), context)[0, 0]


def assert_agree(ours, theirs):
    assert theirs.std() > 0.1
    assert_same(ours, theirs)


@pytest.mark.parametrize("combine", COMBINES)
@pytest.mark.parametrize("kind", CONDITIONS)
def test_scd_agrees_with_the_released_forward_pass(file, combine, kind):
    weights, (past, noisy), cond = scd_weights(combine, kind), videos(), CONDITIONS[kind]
    stated = {"fusion": "add"} if combine == "add" else {}
    network = models.load(file(weights), height=HEIGHT, width=WIDTH, **stated)
    assert network.config.fusion == COMBINES[combine]
    theirs = reference.scd(weights, combine, past, noisy, 1000 * SIGMA, cond)
    assert_agree(velocity(network, past, noisy, cond), theirs)


@pytest.mark.parametrize("kind", CONDITIONS)
@pytest.mark.parametrize("frames", [0, FRAMES])
def test_far_agrees_with_the_released_forward_pass(file, kind, frames):
    weights, (past, noisy), cond = far_weights(kind), videos(), CONDITIONS[kind]
    cond = cond[: frames + 1] if kind == "action" else cond
    network = models.load(file(weights), height=HEIGHT, width=WIDTH)
    theirs = reference.far(weights, past[:frames], noisy, 1000 * SIGMA, cond)
    assert_agree(velocity(network, past[:frames], noisy, cond), theirs)


def test_patches_are_packed_as_in_the_released_code(file):
    past, noisy = videos(patch=2)
    stated = {"height": 2 * HEIGHT, "width": 2 * WIDTH, "patch": 2}
    for weights, forward in (
        (
            scd_weights(kind=None, values=4 * CHANNELS),
            lambda w, *rest: reference.scd(w, "token_concat", *rest),
        ),
        (far_weights(values=4 * CHANNELS), reference.far),
    ):
        network = models.load(file(weights), **stated)
        assert network.geometry.channels == CHANNELS
        theirs = forward(weights, past, noisy, 1000 * SIGMA, None, 2)
        assert_agree(velocity(network, past, noisy, None), theirs)


def test_an_encoder_may_end_in_a_plain_norm(file):
    weights, (past, noisy) = scd_weights(norm_out=False), videos()
    network = models.load(file(weights), height=HEIGHT, width=WIDTH)
    theirs = reference.scd(weights, "token_concat", past, noisy, 1000 * SIGMA, ACTIONS)
    assert_agree(velocity(network, past, noisy, ACTIONS), theirs)


@pytest.mark.parametrize("combine", COMBINES)
def test_the_reference_reads_every_tensor_it_is_given(combine):
    weights, (past, noisy) = scd_weights(combine, width=64), videos()
    for weight in weights.values():
        weight.requires_grad_(True)
    reference.scd(weights, combine, past, noisy, 500.0, ACTIONS).square().sum().backward()
    assert not [name for name, weight in weights.items() if weight.grad is None or not weight.grad.any()]


@pytest.mark.parametrize("nest", [(), ("state_dict",), ("ema",), ("ema", "model")])
@pytest.mark.parametrize("settings", [{}, {"_use_new_zipfile_serialization": False}])
def test_a_state_dict_is_found_where_it_lies(file, nest, settings):
    weights = held = far_weights(width=64)
    for key in reversed(nest):
        held = {key: held, "step": 7}
    network = models.load(file(held, **settings))
    assert torch.equal(network.embed.weight, weights["x_embedder.weight"])


def test_safetensors_in_that_layout_need_no_metadata(tmp_path):
    weights = far_weights(width=64)
    save_file(weights, tmp_path / "model.safetensors")
    network = models.load(str(tmp_path))
    assert torch.equal(network.unembed.bias, weights["proj_out.bias"])


SIZES = {  # layers, width, heads; parameters as published, in millions
    "FAR-B": (12, 768, 12, 130),
    "FAR-L": (24, 1024, 16, 457),
    "FAR-XL": (28, 1152, 18, 674),
}


@pytest.mark.parametrize("name", SIZES)
def test_the_sizes_of_far_are_read_off(name, tmp_path):
    layers, width, heads, millions = SIZES[name]
    shapes = reference.far_shapes(width, 32, layers)
    weights = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    model, names, _ = official.layout(Checkpoint(tmp_path / "far.pth", weights), official.DEFAULTS)
    config = model.config
    assert (config.layers, config.d_model, config.heads) == (layers, width, heads)
    assert (config.channels, config.height, config.width, config.patch) == (32, 8, 8, 1)
    assert config.conditions == 0 and {names[name] for name in model.state_dict()} == set(weights)
    assert abs(sum(weight.numel() for weight in weights.values()) / 1e6 - millions) < 2


def test_the_released_scd_is_read_off(tmp_path):
    shapes = reference.scd_shapes(1024, 32, 8, 4, "token_concat", ("action", 5))
    assert len(shapes) == 236
    weights = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    assert abs(sum(weight.numel() for weight in weights.values()) - 233.61e6) < 5e3
    config = official.layout(Checkpoint(tmp_path / "ema.pth", weights), official.DEFAULTS)[0].config
    assert (config.encoder_layers, config.decoder_layers, config.heads) == (8, 4, 16)
    assert (config.conditions, config.fusion, config.start_token) == (4, "token_concat", False)


@pytest.mark.parametrize("kind", ["action", "label"])
def test_a_loaded_model_says_what_it_is_and_not_what_it_was_trained_on(file, kind):
    path = file(scd_weights(kind=kind, width=64))
    source = models.load(path).source
    assert str(source.file) == path and len(source.sha256) == 64
    assert source.metadata["network"] == "scd" and source.metadata["condition"] == kind
    for name in ("videos", "frames"):
        with pytest.raises(ValueError) as error:
            getattr(source, name)
        assert re.search(rf"^{re.escape(path)} .*--videos.*--frames", str(error.value))


@pytest.mark.parametrize(("kind", "takes"), [("action", "actions"), ("label", "labels"), (None, None)])
@pytest.mark.parametrize("weights", [scd_weights, far_weights])
def test_a_loaded_model_and_its_copy_say_what_they_take_and_hold(file, tmp_path, kind, takes, weights):
    network = models.load(file(weights(kind=kind, width=64)))
    models.save(network, tmp_path / "own.safetensors")
    for model in (network, models.load(str(tmp_path / "own.safetensors"))):
        assert model.latent and model.takes == takes and model.null_condition == (4 if kind else None)
    assert network.sampling == SAMPLING and not tiny.model().latent


def test_the_sampler_is_that_of_the_released_code(file):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(50)
    network = models.load(file(far_weights()))
    assert_same(network.sampling.grid, scheduler.sigmas, bound=1e-7)
    assert models.load(file(far_long_weights()), height=2, width=4, short_frames=3).sampling == SAMPLING


def test_our_own_checkpoints_say_what_they_were_trained_on(tmp_path):
    source = models.load(str(tiny.checkpoint(tmp_path / "tiny.safetensors", frames=9))).source
    assert (source.videos, source.frames) == ("tiles", 9)


def test_what_was_told_is_kept_in_a_checkpoint_of_ours(file, tmp_path):
    network = models.load(file(scd_weights("add")), height=HEIGHT, width=WIDTH, fusion="add")
    models.save(network, tmp_path / "own.safetensors")
    again, (past, noisy) = models.load(str(tmp_path / "own.safetensors")), videos()
    assert again.config == network.config
    both = [velocity(model, past, noisy, ACTIONS) for model in (network, again)]
    assert_same(*both)
    with pytest.raises(ValueError, match="height"):
        models.load(str(tmp_path / "own.safetensors"), height=4)


def test_a_model_of_the_released_code_goes_on_from_a_given_frame_only(file):
    network = models.load(file(scd_weights(width=64)), height=HEIGHT, width=WIDTH)
    (past, _), cond = videos(), torch.tensor([ACTIONS])
    noise = tiny.draw(1, FRAMES + 1, CHANNELS, HEIGHT, WIDTH)
    video = rollout(network, noise, sigma_grid(2), cond, given=past[None, :1])
    assert video.shape == noise.shape and torch.equal(video[0, 0], past[0])
    with pytest.raises(ValueError, match=r"\b0\b"):
        rollout(network, noise, sigma_grid(2), cond)


# Bad input


@pytest.fixture
def refused(tmp_path, capsys):
    """The line with which `framelens probe` and `models.load` refuse a file."""

    def line(path, **unsaid):
        with pytest.raises(ValueError) as error:
            models.load(str(path), **unsaid)
        (stated,) = str(error.value).splitlines()
        assert stated.startswith(str(path))
        if not unsaid:
            status = probes_main(["--model", str(path), "--out", str(tmp_path / "runs")])
            assert status == 2 and capsys.readouterr().err == f"framelens probe: {stated}\n"
            assert not (tmp_path / "runs").exists()
        return stated.removeprefix(str(path))

    return line


class Command:
    """What a hostile file holds: a call that unpickling makes."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_code_in_a_file_is_named_and_not_run(refused, file, tmp_path):
    line = refused(file({"weights": Command(tmp_path / "trace")}))
    assert f"{os.mkdir.__module__}.mkdir" in line
    assert "argparse.Namespace" in refused(file({"args": argparse.Namespace()}))
    assert "torch.nn.modules.linear.Linear" in refused(file(torch.nn.Linear(1, 1)))
    plain = tmp_path / "plain.pth"
    plain.write_bytes(pickle.dumps({"weights": Command(tmp_path / "trace")}))
    assert "torch.save" in refused(plain)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_file_is_named(refused, tmp_path, file, share, zipped):
    whole = file(far_weights(width=64), "whole.pth", _use_new_zipfile_serialization=zipped)
    content = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(content[: int(share * len(content))])
    assert models.load(whole) and refused(tmp_path / "half.pth")


@pytest.mark.slow
def test_damaged_bytes_are_refused_or_harmless(file, tmp_path):
    """Whatever torch.load raises on a damaged file comes out as one line that names it."""
    generator = torch.Generator().manual_seed(0)
    for zipped in (True, False):
        file({"a": torch.ones(2)}, "x.pth", _use_new_zipfile_serialization=zipped)
        content = (tmp_path / "x.pth").read_bytes()
        for _ in range(100):
            damaged = bytearray(content)
            for place in torch.randint(2, len(content), (4,), generator=generator).tolist():
                damaged[place] = int(torch.randint(256, (), generator=generator))
            (tmp_path / "damaged.pth").write_bytes(damaged)
            with pytest.raises(ValueError) as error:
                models.load(str(tmp_path / "damaged.pth"))
            assert str(error.value).startswith(str(tmp_path / "damaged.pth"))
            assert len(str(error.value).splitlines()) == 1


def test_what_is_no_checkpoint_is_named(refused, file, tmp_path):
    (tmp_path / "text.pth").write_text("weights\n")
    assert "b'we'" in refused(tmp_path / "text.pth")
    (tmp_path / "empty.pth").touch()
    assert "empty" in refused(tmp_path / "empty.pth")
    assert re.search("list.*dict", refused(file([torch.ones(1)])))
    assert "['step']" in refused(file({"step": 3, "a": torch.ones(1)}))


def test_networks_of_others_are_named(refused, file):
    autoencoder = {
        f"{half}.stages.{i}.weight": torch.ones(1) for half in ("encoder", "decoder") for i in "0123456"
    }
    line = refused(file(autoencoder))
    assert "official" in line
    assert "'decoder.stages.0.weight'" in line and "'encoder.stages.2.weight'" in line
    assert "'encoder.stages.3.weight'" not in line
    assert "official" in refused(file(tiny.model().state_dict()))


def test_a_checkpoint_under_the_other_networks_name_is_named(refused, tmp_path):
    network = tiny.model()
    path = tiny.checkpoint(tmp_path / "dense.safetensors", network)
    metadata = tiny.metadata(network)
    config = {k: v for k, v in metadata["config"].items() if k != "layers"}
    scd = metadata | {"network": "scd", "config": config | {"encoder_layers": 1, "decoder_layers": 1}}
    write(path, network.state_dict(), scd)
    line = refused(path)
    assert "'decoder.blocks.0.attn.k.bias'" in line
    write(path, network.state_dict(), metadata | {"network": "scd"})
    assert " scd " in refused(path)


def test_missing_and_unexpected_tensors_are_named_as_in_the_file(refused, file):
    weights = scd_weights(width=64)
    without = {name: w for name, w in weights.items() if "decoder.transformer_blocks.0" not in name}
    line = refused(file(without))
    missing = ".attn.norm_k.weight .attn.norm_q.weight .attn.to_k.bias .attn.to_k.weight .attn.to_out.0.bias "
    missing += ".attn.to_out.0.weight .attn.to_q.bias .attn.to_q.weight .attn.to_v.bias .attn.to_v.weight"
    first_ten = [f"decoder.transformer_blocks.0{name}" for name in missing.split()]
    assert re.search(rf"\b18 .*{re.escape(str(first_ten))}.*\b0 .*\[\]", line)
    line = refused(file(weights | {f"encoder.extra.{i}": torch.ones(1) for i in range(12)}))
    assert re.search(r"\b0 .*\[\].*\b12 .*\['encoder\.extra\.0', ", line) and line.count("extra") == 10
    only_encoder = {name: w for name, w in weights.items() if name.startswith("encoder.")}
    assert "decoder.x_embedder.weight" in refused(file(only_encoder))
    without_output = {name: w for name, w in far_weights(width=64).items() if "proj_out" not in name}
    line = refused(file(without_output))
    assert re.search(r"\b2 .*\['proj_out.bias', 'proj_out.weight'\].*\b0 ", line)


def test_shapes_that_do_not_fit_are_named(refused, file):
    weights = far_weights(width=64)
    name = "transformer_blocks.1.attn.to_q.weight"
    line = refused(file(weights | {name: torch.ones(3, 64)}))
    assert re.search(rf"{re.escape(name)} .*\(3, 64\).*\(64, 64\)", line)
    for shape in ((96, 4), (64,), (64, 0)):
        line = refused(file(weights | {"x_embedder.weight": torch.ones(shape)}))
        assert "x_embedder.weight" in line and str(shape) in line
    assert re.search(r"x_embedder\.weight .*\(64, 4\)", refused(file(weights), patch=3))


def test_what_a_file_is_told_has_to_fit_it(refused, file):
    dense, scd = file(far_weights(width=64), "far.pth"), file(scd_weights("concat", width=64))
    assert re.search("dense .*fusion.*height, width, patch$", refused(dense, fusion="add"))
    assert re.search("depth.*height, width, patch, fusion", refused(scd, depth=3))
    assert re.search("channel_concat.*'add'", refused(scd, fusion="add"))
    plain = file(scd_weights(width=64), "plain.pth")
    assert re.search("token_concat .*add.*'prefix'", refused(plain, fusion="prefix"))
    assert re.search(r"height .*\b1\b.*\b0$", refused(dense, height=0))
