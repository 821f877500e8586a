"""Trace hands over every value at its moment, changes nothing, and never misses a point in silence."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from framelens.hooks import SilentHookError, Trace


class Guarded(nn.Module):
    """A hook point that torch.compile sees change: it reads its own hooks under another name."""

    is_guarded = True

    def __init__(self):
        super().__init__()
        self.attached = self._forward_hooks

    def forward(self, x):
        return x if len(self.attached) else x


class Block(nn.Module):
    def __init__(self, point):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.hook_resid_post = point()

    def forward(self, x):
        return self.hook_resid_post(x + torch.tanh(self.linear(x)))


class Network(nn.Module):
    def __init__(self, point=nn.Identity, layers=3):
        super().__init__()
        self.hook_embed = point()
        self.blocks = nn.ModuleList(Block(point) for _ in range(layers))

    def forward(self, x):
        x = self.hook_embed(x)
        for block in self.blocks:
            x = block(x)
        return x

    @property
    def hook_dict(self):
        return {name: module for name, module in self.named_modules() if "hook_" in name}


@pytest.fixture
def x():
    return torch.randn(2, 4, generator=torch.Generator().manual_seed(0))


def moment(step=0, role="denoise"):
    return SimpleNamespace(step=step, role=role)


def passes_through(run, x, *instruments, steps=3):
    for step in range(steps):
        for instrument in instruments:
            instrument.on_pass(moment(step))
        out = run(x)
    return out


def hooks_on(model):
    return sum(len(module._forward_hooks) for module in model.modules())


def ignore(at, name, value):
    pass


def test_a_trace_hands_over_each_value_with_its_moment_and_name(x):
    model, seen = Network(), []
    with Trace(model.hook_dict, ["hook_embed", "blocks.[02].*"], lambda *event: seen.append(event)) as trace:
        passes_through(model, x, trace, steps=2)
    assert [(at.step, name) for at, name, _ in seen] == [
        (step, name)
        for step in (0, 1)
        for name in ("hook_embed", "blocks.0.hook_resid_post", "blocks.2.hook_resid_post")
    ]
    assert torch.equal(seen[0][2], x) and torch.equal(seen[-1][2], model(x))
    assert not seen[-1][2].requires_grad


def test_tracing_does_not_change_a_bit_of_the_output(x):
    model = Network()
    clean = model(x)
    with Trace(model.hook_dict, "*", ignore) as trace:
        assert torch.equal(passes_through(model, x, trace), clean)
    clean.sum().backward()


def test_any_module_with_a_tensor_output_is_a_hook_point(x):
    model, seen = Network(), []
    with Trace(dict(model.named_modules()), "blocks.1.linear", lambda *event: seen.append(event)):
        model(x)
    assert seen[0][0] is None and seen[0][2].shape == (2, 4)


def test_a_point_that_gives_several_values_is_refused(x):
    lstm = nn.LSTM(4, 4)
    with pytest.raises(ValueError, match="'lstm'.*tuple"):
        with Trace({"lstm": lstm}, "lstm", ignore):
            lstm(x)


def test_traces_compose(x):
    model, outer, inner = Network(), [], []
    with Trace(model.hook_dict, "*", lambda at, name, value: outer.append(name)) as first:
        with Trace(model.hook_dict, "blocks.1.*", lambda at, name, value: inner.append(name)) as second:
            passes_through(model, x, first, second)
        assert hooks_on(model) == 4
    assert (len(outer), len(inner), hooks_on(model)) == (12, 3, 0)


def test_a_trace_can_be_entered_again_but_not_twice_at_once(x):
    model, seen = Network(), []
    trace = Trace(model.hook_dict, "hook_embed", lambda at, name, value: seen.append(at))
    for _ in range(2):
        with trace:
            passes_through(model, x, trace, steps=2)
    assert len(seen) == 4
    with trace, pytest.raises(RuntimeError):
        trace.__enter__()
    assert hooks_on(model) == 0


def test_a_pattern_without_a_match_names_the_points_there_are():
    model = Network()
    with pytest.raises(ValueError, match=r"'layers\.\*'.*\['hook_embed', "):
        Trace(model.hook_dict, ["hook_embed", "layers.*"], ignore)
    with pytest.raises(ValueError, match="hook_embed"):
        Trace(model.hook_dict, [], ignore)


def test_hooks_are_gone_after_an_error_in_the_sink_or_in_the_forward(x):
    def fail(at, name, value):
        raise KeyError("stop")

    model = Network()
    for sink, values in ((fail, x), (ignore, x[:, :3])):
        with pytest.raises((KeyError, RuntimeError)):
            with Trace(model.hook_dict, "*", sink) as trace:
                trace.on_pass(moment())
                model(values)
        assert hooks_on(model) == 0


def test_hooks_are_gone_after_a_failure_halfway_through_attaching():
    class Stubborn(nn.Module):
        def register_forward_hook(self, hook):
            raise OSError("no hooks here")

    model = Network()
    with pytest.raises(OSError, match="no hooks here"):
        with Trace(model.hook_dict | {"last": Stubborn()}, "*", ignore):
            raise AssertionError("the body must not run")
    assert hooks_on(model) == 0


def test_a_point_that_never_fires_is_an_error(x):
    model = Network()
    points = model.hook_dict | {"blocks.9.hook_resid_post": nn.Identity()}
    with pytest.raises(SilentHookError, match="'blocks.9.hook_resid_post'.* 3 "):
        with Trace(points, "*", ignore) as trace:
            passes_through(model, x, trace)


def test_a_pass_that_was_not_announced_is_an_error(x):
    model = Network()
    with pytest.raises(SilentHookError, match=r"\b3 .*\b2 .*\b1 .*'denoise'"):
        with Trace(model.hook_dict, "*", ignore) as trace:
            trace.on_pass(moment())
            model(x)
            model(x)


def test_a_point_may_stay_away_from_a_role(x):
    model = Network()
    with Trace(model.hook_dict, "*", ignore) as trace:
        passes_through(model, x, trace)
        trace.on_pass(moment(role="encode"))
        model.hook_embed(x)


def test_an_error_in_the_body_is_not_hidden_by_the_law_of_firing():
    with pytest.raises(ZeroDivisionError):
        with Trace(Network().hook_dict, "*", ignore) as trace:
            trace.on_pass(moment())
            raise ZeroDivisionError


@pytest.mark.parametrize("with_pass", [True, False])
def test_a_trace_that_stops_runs_nothing_after_its_last_point(x, with_pass):
    model, seen, ran = Network(), [], []
    for block in model.blocks:
        block.linear.register_forward_pre_hook(lambda module, inputs: ran.append(module))
    names = ["hook_embed", "blocks.1.hook_resid_post"]
    with Trace(model.hook_dict, names, lambda *event: seen.append(event), stop=True) as trace:
        if with_pass:
            trace.on_pass(moment())
        model(x)
        raise AssertionError("the rest of the block must not run")
    assert [name for _, name, _ in seen] == names
    assert ran == [model.blocks[0].linear, model.blocks[1].linear]
    assert hooks_on(model) == 0
    whole = []
    with Trace(model.hook_dict, names[1], lambda at, name, value: whole.append(value)):
        model(x)
    assert torch.equal(seen[1][2], whole[0])


def test_a_trace_stops_in_the_first_pass_in_which_all_its_points_fire(x):
    model, seen = Network(), []
    names = ["hook_embed", "blocks.2.hook_resid_post"]
    with Trace(
        model.hook_dict, names, lambda at, name, value: seen.append((at.role, name)), stop=True
    ) as trace:
        trace.on_pass(moment(role="encode"))
        model.blocks[2](x)
        passes_through(model, x, trace)
        raise AssertionError("the rest of the block must not run")
    assert seen == [("encode", names[1]), ("denoise", names[0]), ("denoise", names[1])]


def test_a_trace_that_stops_hides_no_other_error_and_no_other_trace(x):
    model = Network()
    with pytest.raises(ZeroDivisionError):
        with Trace(model.hook_dict, "*", ignore, stop=True):
            raise ZeroDivisionError
    late = Trace(model.hook_dict, "blocks.2.*", ignore, stop=True)
    with Trace(model.hook_dict, "hook_embed", ignore, stop=True):
        with late:
            model(x)
        raise AssertionError("the inner trace must not hide that the outer one stopped")
    assert hooks_on(model) == 0


def test_a_trace_that_stops_ends_a_rollout_and_later_rollouts_are_whole():
    import tiny

    from framelens.diffusion.sampler import rollout
    from framelens.diffusion.schedule import sigma_grid
    from framelens.hooks import AttentionTap, together

    network, noise, passes, patterns = tiny.model(), tiny.draw(1, 2, 3, 8, 8), [], []
    plain = rollout(network, noise, sigma_grid(2))
    trace = Trace(network.hook_dict, "blocks.0.hook_resid_post", lambda at, *_: passes.append(at), stop=True)
    tap = AttentionTap(network.attn_dict, "blocks.0.attn", lambda at, *_: patterns.append(at))
    with together(tap, trace) as both:
        rollout(network, noise, sigma_grid(2), on_pass=both.on_pass)
        raise AssertionError("the rest of the block must not run")
    assert passes == patterns and len(passes) == 1 and hooks_on(network) == 0
    assert torch.equal(rollout(network, noise, sigma_grid(2)), plain)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["model", "function", "module.compile", "wrapped blocks"])
@pytest.mark.parametrize("point", [Guarded, nn.Identity])
@torch.no_grad()
def test_a_trace_that_stops_works_in_a_compiled_model_or_is_refused(x, how, point):
    model = Network(point)
    run = compiled(model, how)
    clean, seen = run(x), []
    trace = Trace(model.hook_dict, "blocks.1.*", lambda at, name, value: seen.append(name), stop=True)
    if point is Guarded:
        with trace:
            trace.on_pass(moment())
            run(x)
            raise AssertionError("the rest of the block must not run")
        assert len(seen) == 1
    else:
        with pytest.raises(SilentHookError, match="compiled"), trace:
            trace.on_pass(moment())
            run(x)
    assert hooks_on(model) == 0 and torch.equal(run(x), clean)


def compiled(model, how):
    """The model compiled in one of the ways people do it, run once before any hook is there."""
    torch.compiler.reset()
    if how == "model":
        return torch.compile(model, backend="eager")
    if how == "function":
        return torch.compile(lambda x: model(x) * 1, backend="eager")
    for index, block in enumerate(model.blocks):
        if how == "module.compile":
            block.compile(backend="eager")
        else:
            model.blocks[index] = torch.compile(block, backend="eager")
    return model


@pytest.mark.slow
@pytest.mark.parametrize("how", ["model", "function", "module.compile", "wrapped blocks"])
@torch.no_grad()
def test_guarded_points_work_in_a_compiled_model(x, how):
    model = Network(Guarded)
    run = compiled(model, how)
    clean = run(x)
    for name in list(model.hook_dict) * 3:
        seen = []
        trace = Trace(model.hook_dict, name, lambda at, name, value, seen=seen: seen.append(at.step))
        with trace:
            assert torch.equal(passes_through(run, x, trace), clean)
        assert seen == [0, 1, 2]
        assert torch.equal(run(x), clean)


@pytest.mark.parametrize("how", ["model", "function", "module.compile", "wrapped blocks"])
@torch.no_grad()
def test_other_points_in_a_compiled_model_are_refused_or_found_out(x, how):
    model = Network()
    run = compiled(model, how)
    run(x)
    for name in list(model.hook_dict)[1:]:
        seen = []
        with pytest.raises(SilentHookError):
            with Trace(model.hook_dict, name, lambda at, name, value: seen.append(at)) as trace:  # noqa: B023
                passes_through(run, x, trace)
        assert seen == [] and hooks_on(model) == 0


def test_points_under_a_module_known_to_be_compiled_are_refused_at_once():
    model = Network()
    model.blocks[1].compile(backend="eager")
    points = dict(model.named_modules())
    with pytest.raises(SilentHookError, match="'blocks.1'"):
        Trace(points, ["hook_embed", "blocks.1.hook_*"], ignore).__enter__()
    assert hooks_on(model) == 0
    with Trace(points, ["hook_embed", "blocks.0.hook_*"], ignore):
        pass


@torch.no_grad()
def test_a_compiled_block_can_itself_be_watched_where_it_was_wrapped(x):
    model, seen = Network(), []
    compiled(model, "wrapped blocks")
    clean = model(x)
    with Trace(dict(model.named_modules()), "blocks.2", lambda *event: seen.append(event[2])) as trace:
        passes_through(model, x, trace)
    assert len(seen) == 3 and torch.equal(seen[0], clean)


@torch.no_grad()
def test_the_hook_points_of_our_networks_are_guarded_against_every_way_to_attach(x):
    from framelens.models.parts.blocks import GuardedHookPoint

    model = Network(GuardedHookPoint)
    run = compiled(model, "model")
    clean = run(x)
    with Trace(model.hook_dict, "*", ignore) as trace:
        assert torch.equal(passes_through(run, x, trace), clean)
    for attach in (
        lambda point: point.register_forward_hook(lambda module, inputs, output: output * 0),
        lambda point: point.add_hook(lambda value, hook: value * 0).hook,
    ):
        handle = attach(model.blocks[-1].hook_resid_post)
        assert not run(x).any()
        handle.remove()
        model.blocks[-1].hook_resid_post.remove_hooks()
        assert torch.equal(run(x), clean)
