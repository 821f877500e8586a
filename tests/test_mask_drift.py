"""Mask drift: what a frame-causal mask changes in a network whose frames see each other both ways."""

import pytest
import tiny
import torch
from torch import nn
from torch.nn import functional as F

from diffusion.sampler import ForwardPass
from hooks import AttentionEdit, AttentionPoint
from hooks.attention_edit import frame_causal
from probes.mask_drift import mask_drift

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

    def denoise(self, x, sigma, context):
        tokens = x.permute(0, 1, 3, 4, 2).flatten(1, 3)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens.unflatten(1, (x.shape[1], *x.shape[3:])).permute(0, 1, 4, 2, 3)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Bidirectional().eval().requires_grad_(False)


def drift(model, frames=FRAMES, batch=2):
    return mask_drift(model, tiny.draw(batch, frames, 8, 2, 2), 0.5, None)


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
    """Behind a causal mask the first frame is what it is without the others."""
    x = tiny.draw(1, FRAMES, 8, 2, 2)
    masked = drift_of_first_frame(model, x)
    other = x.clone()
    other[:, 1:] += 1
    torch.testing.assert_close(masked, drift_of_first_frame(model, other))
    torch.testing.assert_close(masked, model.denoise(x[:, :1], None, None)[:, 0])


def drift_of_first_frame(model, x):
    with AttentionEdit(model.attn_dict, {"*": lambda at, name, call: frame_causal(call, FRAMES)}) as edit:
        edit.on_pass(ForwardPass(0, 0, 0.5, "denoise"))
        return model.denoise(x, None, None)[:, 0]
