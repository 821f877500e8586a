"""A frame-causal mask changes a bidirectional network, and leaves the first frame as it is alone."""

import json
import re

import fake_manifest
import numpy as np
import pytest
import tiny
import torch
from bounds import assert_same
from torch import nn
from torch.nn import functional as F

from framelens.diffusion.contract import Geometry
from framelens.diffusion.sampler import ForwardPass
from framelens.diffusion.source import Source
from framelens.hooks import AttentionEdit, AttentionPoint
from framelens.hooks.attention_edit import mask_later_frames
from framelens.probes.experiments.mask_drift import mask_drift, measure
from framelens.probes.run.probed_clip import Clip, ProbedClip
from framelens.probes.run.settings import Settings
from framelens.reports.plots import load
from framelens.reports.runs import open_run

pytestmark = pytest.mark.usefixtures("all_float64")

LAYERS, FRAMES, TOKENS = 3, 3, 4


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.attn, self.mlp = Attention(width), nn.Linear(width, width)
        self.hook_resid_pre, self.hook_resid_post = nn.Identity(), nn.Identity()

    def forward(self, x):
        x = self.hook_resid_pre(x)
        x = x + self.attn(x)
        return self.hook_resid_post(x + torch.tanh(self.mlp(x)))


class Bidirectional(nn.Module):
    """All frames of a clip denoised together, each token seeing all of them."""

    geometry = Geometry(1, 8, 2, 2, 1, LAYERS, 2, 8)

    def __init__(self, width=8):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width) for _ in range(LAYERS))

    @property
    def hook_dict(self):
        ends = ("hook_resid_pre", "hook_resid_post")
        return {
            f"blocks.{i}.{end}": getattr(block, end) for i, block in enumerate(self.blocks) for end in ends
        }

    @property
    def attn_dict(self):
        age = torch.zeros(FRAMES * TOKENS, dtype=torch.long)
        return {
            f"blocks.{i}.attn": AttentionPoint(block.attn, lambda frame, keys: age[:keys])
            for i, block in enumerate(self.blocks)
        }

    def start(self, batch, cond=None):
        raise AssertionError("a whole clip is looked at in one pass")

    encode = denoise = start

    def bidirectional(self, x, sigma, cond):
        tokens = x.permute(0, 1, 3, 4, 2).flatten(1, 3)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens.unflatten(1, (x.shape[1], *x.shape[3:])).permute(0, 1, 4, 2, 3)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Bidirectional().eval().requires_grad_(False)


def drift(model, frames=FRAMES, batch=2):
    x = tiny.draw(batch, frames, 8, 2, 2)
    return mask_drift(model, x, 0.5, lambda x, sigma: model.bidirectional(x, sigma, None))


def probed_clip_of(networks, **settings):
    clip = Clip(tiny.draw(1, FRAMES, 8, 2, 2), None)
    settings = Settings(clips=1, frames=FRAMES, context=1, probed=1, steps=2, **settings)
    return ProbedClip(0, networks, clip, clip, settings, FRAMES)


def test_axes_are_as_promised(model):
    found = drift(model)
    assert found.relative_l2.dims == ("clip", "scope", "layer") and found.relative_l2.shape == (2, 2, LAYERS)
    assert found.scope.values.tolist() == ["alone", "through"]
    assert found.point.values.tolist() == ["blocks.0", "blocks.1", "blocks.2"]
    assert all(variable.attrs["units"] and variable.attrs["long_name"] for variable in found.values())


def test_a_mask_changes_a_bidirectional_network_more_through_the_stack(model):
    found = drift(model)
    assert (found.relative_l2 > 0.01).all() and (found.centred_cosine < 1).all()
    alone, through = (found.relative_l2.sel(scope=scope) for scope in ("alone", "through"))
    assert alone.values[:, 0].tolist() == through.values[:, 0].tolist()
    assert (through.isel(layer=-1) > alone.isel(layer=-1)).all()


def test_one_frame_has_no_later_one_to_hide(model):
    found = drift(model, frames=1)
    assert (found.relative_l2 == 0).all()
    assert found.centred_cosine.values == pytest.approx(1)


def test_the_masked_stack_is_the_frames_alone(model):
    """Under a causal mask the first frame is what it is without the others."""
    x = tiny.draw(1, FRAMES, 8, 2, 2)
    masked = drift_of_first_frame(model, x)
    other = x.clone()
    other[:, 1:] += 1
    assert_same(masked, drift_of_first_frame(model, other))
    assert_same(masked, model.bidirectional(x[:, :1], None, None)[:, 0])


def drift_of_first_frame(model, x):
    with AttentionEdit(
        model.attn_dict, {"*": lambda at, name, call: mask_later_frames(call, FRAMES)}
    ) as edit:
        edit.on_pass(ForwardPass(0, 0, 0.5, "denoise"))
        return model.bidirectional(x, None, None)[:, 0]


def test_it_is_measured_of_every_network_at_several_levels_in_a_run(model):
    other = Bidirectional().eval().requires_grad_(False)
    model.source = Source()
    (found,) = measure(probed_clip_of({"trained": model, "random": other})).values()
    assert found.relative_l2.dims == ("clip", "network", "sigma", "scope", "layer")
    assert found.network.values.tolist() == ["trained", "random"] and found.sizes["sigma"] == 3
    assert (np.diff(found.sigma) > 0).all() or (np.diff(found.sigma) < 0).all()
    assert measure(probed_clip_of({"trained": model}, quick=True))["mask_drift"].sizes["sigma"] == 1


def test_a_causal_model_has_nothing_to_mask():
    networks = {"trained": tiny.model()}
    assert measure(probed_clip_of(networks)) == {}
    with pytest.raises(ValueError, match="mask_drift"):
        measure(probed_clip_of(networks, experiments=("mask_drift",)))


@pytest.mark.slow
def test_the_figure_says_which_layer_moves_most_and_how_far_the_last_one_does(model, tmp_path):
    model.source = Source()
    (found,) = measure(probed_clip_of({"trained": model})).values()
    found.assign_coords(clip=[0]).to_netcdf(tmp_path / "mask_drift.nc", engine="netcdf4")
    geometry = {"frames_per_chunk": 1, "tokens_per_frame": 4, "layers": LAYERS}
    manifest = fake_manifest.probe({"name": "x", "geometry": geometry}, {})
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    _, table = load("mask_drift").draw(open_run(tmp_path))
    assert len(table) == 2 * LAYERS and set(table["panel"]) == {"alone", "through"}
    alone = found.relative_l2.sel(scope="alone", network="trained").mean(("clip", "sigma")).values
    said = load("mask_drift").words(table)
    assert re.search(rf"\b{int(alone.argmax())}\b.*{float(alone.max()):.2f}", said)
