"""nnsight sees the same values as plain hooks, by standard names, and `read` leaves nothing."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from framelens.hooks import Trace

pytest.importorskip("nnsight")

from framelens.hooks import source  # noqa: E402
from framelens.hooks.source import read, view  # noqa: E402


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.hook_resid_post = nn.Identity()

    def forward(self, x):
        inner = F.gelu(self.linear(x))
        return self.hook_resid_post(x + inner)


class Network(nn.Module):
    def __init__(self, width=4, layers=2):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width) for _ in range(layers))

    def forward(self, x, gain=1.0):
        for block in self.blocks:
            x = block(x)
        return gain * x


def resid_post(network):
    return {f"blocks.{i}.hook_resid_post": block.hook_resid_post for i, block in enumerate(network.blocks)}


class Adapter(nn.Module):
    """A foreign network whose layers are called otherwise than the standard says."""

    def __init__(self):
        super().__init__()
        self.net = Network()

    @property
    def hook_dict(self):
        return resid_post(self.net)

    def forward(self, x):
        return self.net(x)


def traced(model, points, x):
    values = {}
    with Trace(points, "*", lambda at, name, value: values.update({name: value.clone()})):
        model(x)
    return values


@pytest.mark.parametrize("build", [Network, Adapter])
def test_standard_names_work_in_a_view_and_give_what_trace_gives(build):
    torch.manual_seed(0)
    model, x = build(), torch.randn(3, 4)
    expected = traced(model, resid_post(getattr(model, "net", model)), x)
    net = view(model)
    with net.trace(x):
        value = net.blocks[1].hook_resid_post.output.save()
    assert torch.equal(value, expected["blocks.1.hook_resid_post"])


def test_read_gives_the_value_of_an_operation_inside_a_forward():
    torch.manual_seed(0)
    model, x = Network(), torch.randn(3, 4)
    first = model.blocks[0](x)
    expected = F.gelu(model.blocks[1].linear(first))
    assert torch.equal(read(model, "blocks.1", "F_gelu_0", x, gain=2.0), expected)


def test_read_leaves_the_model_as_it_was():
    model, x = Network(), torch.randn(3, 4)
    before = [set(vars(module)) for module in model.modules()]
    clean = model(x)
    first = read(model, "blocks.0", "F_gelu_0", x)
    assert [set(vars(module)) for module in model.modules()] == before
    assert torch.equal(model(x), clean)
    assert torch.equal(read(model, "blocks.0", "F_gelu_0", x), first)


def test_read_leaves_an_earlier_view_working():
    model, x = Network(), torch.randn(3, 4)
    net = view(model)
    first = read(model, "blocks.0", "F_gelu_0", x)
    with net.trace(x):
        again = net.blocks[0].source.F_gelu_0.output.save()
    assert torch.equal(again, first)


def test_unknown_modules_and_operations_answer_with_those_that_exist():
    model, x = Network(), torch.randn(3, 4)
    with pytest.raises(ValueError, match=r"'layers\.0'.*'blocks.0.linear'"):
        read(model, "layers.0", "F_gelu_0", x)
    with pytest.raises(ValueError, match=r"'blocks\.0'.*'F_relu_0'.*'F_gelu_0'"):
        read(model, "blocks.0", "F_relu_0", x)
    assert "forward" not in vars(model.blocks[0])


SETUP = """
import torch
import framelens
from framelens.hooks.source import read, view
x, sigma = torch.randn(1, 1, 3, 20, 20), torch.tensor([0.5])
context = framelens.load("dense-tiles").start(1, torch.zeros(1, 3, dtype=torch.long))
"""
SHOW = "print(tuple(attended.shape), tuple(value.shape))\n"


@pytest.mark.slow
def test_the_examples_of_the_docstring_run(tmp_path):
    """In a process of their own: here signatures are checked, which wraps every forward."""
    lines = (source.__doc__ or "").splitlines()
    example = [line.removeprefix("    ") for line in lines if line.startswith("    ")]
    (tmp_path / "example.py").write_text("\n".join([SETUP, *example, SHOW]))
    run = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.endswith("(1, 4, 25, 32) (1, 25, 128)\n") and "history_attend_0" in run.stdout


class Contract(nn.Module):
    """A model of the contract: no forward, and hook points somewhere else than their names say."""

    def __init__(self):
        super().__init__()
        self.net = Network()

    @property
    def hook_dict(self):
        return resid_post(self.net)

    def denoise(self, x, sigma, context):
        return sigma * self.net(x) + context


class Named(Network):
    """The same, with hook points where their names say."""

    forward = nn.Module.forward

    @property
    def hook_dict(self):
        return resid_post(self)

    def denoise(self, x, sigma, context):
        for block in self.blocks:
            x = block(x)
        return sigma * x + context


@pytest.mark.parametrize("kind", [Contract, Named])
def test_a_model_without_a_forward_is_traced_through_denoise(kind):
    torch.manual_seed(0)
    model, x = kind(), torch.randn(3, 4)
    values = {}
    with Trace(model.hook_dict, "*", lambda at, name, value: values.update({name: value.clone()})):
        expected = model.denoise(x, 2.0, 1.0)
    net = view(model)
    with net.trace(x, 2.0, 1.0):
        value = net.blocks[0].hook_resid_post.output.save()
        out = net.output.save()
    assert torch.equal(value, values["blocks.0.hook_resid_post"]) and torch.equal(out, expected)
    with net.trace(x, 2.0, 1.0):
        net.blocks[1].hook_resid_post.output = torch.zeros(3, 4)
        edited = net.output.save()
    assert torch.equal(edited, torch.ones(3, 4))


@pytest.mark.parametrize(("kind", "block"), [(Contract, "net.blocks.0"), (Named, "blocks.0")])
def test_an_operation_is_read_of_a_model_without_a_forward(kind, block):
    torch.manual_seed(0)
    model, x = kind(), torch.randn(3, 4)
    expected = F.gelu(model.get_submodule(block).linear(x))
    assert torch.equal(read(model, block, "F_gelu_0", x, 2.0, 1.0), expected)
    assert "forward" not in vars(model) and "forward" not in vars(model.get_submodule(block))


def test_the_template_is_viewed_by_standard_names():
    from framelens.models import adapter_template

    model = adapter_template.load().requires_grad_(False)
    x, sigma, context = torch.randn(1, 1, 3, 20, 20), torch.tensor([0.5]), model.start(1)
    expected = model.denoise(x, sigma, context)
    net = view(model)
    with net.trace(x, sigma, context):
        stream = net.blocks[2].hook_resid_post.output.save()
        out = net.output.save()
    assert stream.shape == (1, 25, 64) and torch.equal(out, expected)
