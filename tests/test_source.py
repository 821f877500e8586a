"""nnsight sees the same values as plain hooks, by standard names, and `read` leaves nothing behind."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hooks import Trace

pytest.importorskip("nnsight")

from hooks.source import read, view  # noqa: E402


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
    with pytest.raises(ValueError, match=r"no module is called 'layers.0'.*'blocks.0.linear'"):
        read(model, "layers.0", "F_gelu_0", x)
    with pytest.raises(AttributeError, match="F_gelu_0"):
        read(model, "blocks.0", "F_relu_0", x)
    assert "forward" not in vars(model.blocks[0])
