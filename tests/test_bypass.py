"""Bypass passes over whole modules: what it returns stands for them, and their bodies do not run."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from framelens.hooks import Bypass, SilentHookError


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.runs = nn.Linear(4, 4), 0

    def forward(self, x, scale):
        self.runs += 1
        return x + scale * torch.tanh(self.linear(x))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))

    def forward(self, x):
        for block in self.blocks:
            x = block(x, scale=2.0)
        return x

    @property
    def points(self):
        return {f"blocks.{index}": block for index, block in enumerate(self.blocks)}


@pytest.fixture
def x():
    return torch.randn(2, 4, generator=torch.Generator().manual_seed(0))


def keep(at, name, value):
    return value


def moment(step=0, role="denoise"):
    return SimpleNamespace(step=step, role=role)


def test_a_bypassed_module_does_not_run_and_is_whole_again_afterwards(x):
    model = Network()
    clean, stored = model(x), torch.ones(2, 4)
    with Bypass(model.points, {"blocks.[01]": lambda at, name, value: stored}) as bypass:
        bypass.on_pass(moment())
        assert torch.equal(model(x), model.blocks[2](stored, 2.0))
    assert [block.runs for block in model.blocks] == [1, 1, 3]
    assert torch.equal(model(x), clean)
    assert not any("forward" in vars(block) for block in model.blocks)


def test_a_module_runs_where_the_substitute_is_none_and_in_other_roles(x):
    model = Network()
    clean = model(x)

    def later(at, name, value):
        return value if at.step else None

    with Bypass(model.points, {"*": later}) as bypass:
        out = []
        for at in (moment(0), moment(1), moment(1, "encode")):
            bypass.on_pass(at)
            out.append(model(x))
    assert [torch.equal(value, clean) for value in out] == [True, False, True]
    assert torch.equal(out[1], x)


def test_unannounced_passes_are_left_alone(x):
    model = Network()
    clean = model(x)
    with Bypass(model.points, {"*": lambda at, name, value: value}):
        assert torch.equal(model(x), clean)


def test_two_patterns_for_one_module_are_refused():
    substitutes = {"blocks.[01]": keep, "blocks.1": keep, "blocks.2": keep}
    with pytest.raises(ValueError, match=r"'blocks.1' matches 'blocks.\[01\]' and 'blocks.1'"):
        Bypass(Network().points, substitutes)


def test_two_bypasses_nest_and_come_off_in_order(x):
    model = Network()
    clean = model(x)
    give = {"blocks.0": lambda at, name, value: value}
    with Bypass(model.points, give) as outer:
        with Bypass(model.points, {"blocks.0": lambda at, name, value: None}) as inner:
            outer.on_pass(moment())
            inner.on_pass(moment())
            bypassed = model(x)
    assert not torch.equal(bypassed, clean) and torch.equal(model(x), clean)


def test_a_value_of_another_shape_is_refused_and_nothing_stays(x):
    model = Network()
    with pytest.raises(ValueError, match="'blocks.1'"):
        with Bypass(model.points, {"blocks.1": lambda at, name, value: value[:1]}) as bypass:
            bypass.on_pass(moment())
            model(x)
    assert not any("forward" in vars(block) for block in model.blocks)


def test_a_module_that_was_not_called_is_an_error():
    model = Network()
    with pytest.raises(SilentHookError, match=r"blocks\.0.* 1 "):
        with Bypass(model.points, {"*": lambda at, name, value: value}) as bypass:
            bypass.on_pass(moment())


@pytest.mark.parametrize("how", ["wrapped", "in place"])
def test_compiled_modules_are_refused(x, how):
    torch.compiler.reset()
    model = Network()
    if how == "wrapped":
        model.blocks[1] = torch.compile(model.blocks[1], backend="eager")
    else:
        model.blocks[1].compile(backend="eager")
    with pytest.raises(SilentHookError):
        with Bypass(model.points, {"blocks.1": lambda at, name, value: value}):
            pass
