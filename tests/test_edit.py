"""Edit replaces values: identity changes nothing, anything else reaches the output."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from framelens.hooks import Edit, SilentHookError, Trace, together


class Guarded(nn.Module):
    is_guarded = True

    def __init__(self):
        super().__init__()
        self.attached = self._forward_hooks

    def forward(self, x):
        return x if len(self.attached) else x


class Network(nn.Module):
    def __init__(self, point=nn.Identity, layers=3):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(layers))
        self.hooks = nn.ModuleList(point() for _ in range(layers))

    def forward(self, x):
        for layer, hook in zip(self.layers, self.hooks, strict=True):
            x = hook(x + torch.tanh(layer(x)))
        return x

    @property
    def hook_dict(self):
        return {f"blocks.{index}.hook_resid_post": hook for index, hook in enumerate(self.hooks)}


@pytest.fixture
def x():
    return torch.randn(2, 4, generator=torch.Generator().manual_seed(0))


def moment(step=0, role="denoise"):
    return SimpleNamespace(step=step, role=role)


def keep(at, name, value):
    return value


def noise(at, name, value):
    return torch.randn(value.shape, generator=torch.Generator().manual_seed(1))


def zero(at, name, value):
    return value * 0


def hooks_on(model):
    return sum(len(module._forward_hooks) for module in model.modules())


def test_the_identity_edit_changes_nothing(x):
    model = Network()
    clean = model(x)
    with Edit(model.hook_dict, {"*": keep}) as edit:
        edit.on_pass(moment())
        assert torch.equal(model(x), clean)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_noise_at_any_point_reaches_the_output_and_is_gone_afterwards(x, layer):
    model = Network()
    clean = model(x)
    with Edit(model.hook_dict, {f"blocks.{layer}.*": noise}):
        assert not torch.allclose(model(x), clean)
    assert torch.equal(model(x), clean)
    assert hooks_on(model) == 0


def test_an_edit_knows_its_moment_and_its_name(x):
    model = Network()
    clean, events = model(x), []

    def from_step_two(at, name, value):
        events.append((at.step, name))
        return value * 0 if at.step >= 2 else value

    with Edit(model.hook_dict, {"blocks.2.*": from_step_two}) as edit:
        outputs = []
        for step in range(4):
            edit.on_pass(moment(step))
            outputs.append(model(x))
    assert [torch.equal(output, clean) for output in outputs] == [True, True, False, False]
    assert events == [(step, "blocks.2.hook_resid_post") for step in range(4)]


def test_a_value_of_another_step_can_be_patched_in(x):
    model, other, kept = Network(), torch.ones(2, 4), {}
    with Trace(model.hook_dict, "blocks.1.*", lambda at, name, value: kept.update({name: value.clone()})):
        expected = model(other)
    with Edit(model.hook_dict, {"blocks.1.*": lambda at, name, value: kept[name]}):
        assert torch.equal(model(x), expected)


def test_two_patterns_for_one_point_are_refused():
    edits = {"blocks.2.*": keep, "blocks.*": zero, "blocks.0.*": keep}
    with pytest.raises(ValueError, match=r"'blocks.0.hook_resid_post' .*'blocks.\*' and 'blocks.0.\*'"):
        Edit(Network().hook_dict, edits)


def test_nested_edits_of_one_point_apply_in_their_order(x):
    model = Network()
    first = Edit(model.hook_dict, {"blocks.2.*": lambda at, name, value: value + 1})
    with together(first, Edit(model.hook_dict, {"blocks.2.*": lambda at, name, value: value * 2})):
        both = model(x)
    assert torch.equal(both, (model(x) + 1) * 2)


def test_instruments_nest_and_later_ones_see_the_edited_value(x):
    model, before, after = Network(), [], []
    last = {"last": model.hooks[2]}
    with (
        Trace(last, "last", lambda at, name, value: before.append(value.clone())) as first,
        Edit(last, {"last": zero}) as edit,
        Trace(last, "last", lambda at, name, value: after.append(value.clone())) as second,
        Edit(model.hook_dict, {"blocks.0.*": keep}) as outer,
    ):
        for instrument in (first, edit, second, outer):
            instrument.on_pass(moment())
        assert not model(x).any()
    assert before[0].any() and not after[0].any()
    assert torch.equal(before[0], model(x))
    assert hooks_on(model) == 0


def test_gradients_flow_through_an_edit(x):
    model, gain = Network(), torch.ones((), requires_grad=True)
    with Edit(model.hook_dict, {"blocks.0.*": lambda at, name, value: value * gain}):
        model(x).sum().backward()
    assert gain.grad.abs() > 0


@pytest.mark.parametrize(
    "wrong, got",
    [
        (lambda at, name, value: value[:1], r"\(\(1, 4\), torch.float32\)"),
        (lambda at, name, value: value.double(), "torch.float64"),
        (lambda at, name, value: None, "NoneType"),
    ],
)
def test_a_new_value_of_another_kind_is_refused(x, wrong, got):
    model = Network()
    with pytest.raises(ValueError, match=rf"'blocks.1.hook_resid_post'.*{got}"):
        with Edit(model.hook_dict, {"blocks.1.*": wrong}):
            model(x)
    assert hooks_on(model) == 0


def test_a_pattern_without_a_match_is_refused():
    with pytest.raises(ValueError, match=r"'blocks\.7\.\*'"):
        Edit(Network().hook_dict, {"blocks.0.*": keep, "blocks.7.*": keep})


def test_an_edit_that_was_never_asked_is_an_error(x):
    model = Network()
    with pytest.raises(SilentHookError, match=r"blocks\.0.* 1 "):
        with Edit(model.hook_dict, {"blocks.0.*": zero}) as edit:
            edit.on_pass(moment())


@pytest.mark.parametrize("point", [Guarded, nn.Identity])
@torch.no_grad()
def test_a_compiled_model_is_edited_where_its_points_are_guarded_and_found_out_elsewhere(x, point):
    torch.compiler.reset()
    model = Network(point)
    run = torch.compile(model, backend="eager")
    clean = run(x)

    def edited(name):
        with Edit(model.hook_dict, {name: zero}) as edit:
            edit.on_pass(moment())
            return run(x)

    for name in list(model.hook_dict) * 2:
        if point is Guarded:
            expected = edited(name)
            assert not torch.allclose(expected, clean)
        else:
            with pytest.raises(SilentHookError):
                edited(name)
        assert torch.equal(run(x), clean)
