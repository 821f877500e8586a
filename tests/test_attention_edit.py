"""AttentionEdit replaces what fused attention returns; cut is a frame-diagonal mask."""

from dataclasses import replace
from types import SimpleNamespace

import carried
import pytest
import tiny
import torch
import variants
from bounds import assert_same
from torch import nn
from torch.nn import functional as F

from framelens.diffusion.sampler import rollout
from framelens.diffusion.schedule import sigma_grid
from framelens.hooks import AttentionEdit, AttentionPoint, AttentionTap, SilentHookError, cut
from framelens.hooks.attention_edit import mask_later_frames, mask_other_frames
from framelens.models import adapter_template

pytestmark = pytest.mark.usefixtures("all_float64")

FRAMES, STEPS = 3, 2
TOKENS = adapter_template.TOKENS


class Attending(nn.Module):
    """Attention of its input over itself, or of its last tokens over all of it."""

    def __init__(self, queries=None):
        super().__init__()
        self.queries = queries

    def forward(self, x):
        k = x.unflatten(-1, (2, -1)).transpose(1, 2)
        q = k if self.queries is None else k[:, :, -self.queries :]
        return F.scaled_dot_product_attention(q, k, k.flip(-1))


def masked(x, queries, sees):
    """The same with an explicit mask, [q k], True where a query sees a key."""
    k = x.unflatten(-1, (2, -1)).transpose(1, 2)
    return F.scaled_dot_product_attention(k[:, :, -queries:], k, k.flip(-1), attn_mask=sees)


def moment(role="denoise", frame=2):
    return SimpleNamespace(frame=frame, step=0, role=role)


def under(instrument, module, x, at=None):
    with instrument:
        instrument.on_pass(at or moment())
        return module(x)


@pytest.mark.parametrize(
    "ages, queries",
    [([2, 2, 1, 1, 0, 0], 2), ([1, 1, 0, 0], 4), ([-1, 2, 1, 0, 0], 2), ([-1, 1, 0, 0], 4), ([0, 0], 2)],
)
def test_a_cut_is_a_frame_diagonal_mask(ages, queries):
    age = torch.tensor(ages)
    module, x = Attending(queries), tiny.draw(3, len(ages), 8)
    points = {"attn": AttentionPoint(module, lambda frame, keys: age)}
    sees = (age[None] == age[-queries:, None]) | (age[None] == -1)
    assert_same(under(cut(points), module, x), masked(x, queries, sees))


def test_where_no_key_is_older_a_cut_changes_no_bit():
    module, x = Attending(), tiny.draw(1, 4, 8)
    points = {"attn": AttentionPoint(module, lambda frame, keys: torch.tensor([-1, 0, 0, 0]).clamp(min=0))}
    assert torch.equal(under(cut(points), module, x), module(x))


def test_a_cut_of_one_head_leaves_the_other():
    module, x = Attending(2), tiny.draw(2, 4, 8)
    points = {"attn": AttentionPoint(module, lambda frame, keys: torch.tensor([1, 1, 0, 0]))}
    whole, plain = under(cut(points), module, x), module(x)
    one = under(cut(points, heads=[1]), module, x)
    assert torch.equal(one[:, 0], plain[:, 0]) and torch.equal(one[:, 1], whole[:, 1])
    assert not torch.allclose(one[:, 1], plain[:, 1])


@pytest.mark.parametrize("heads", [[2], [-1], []])
def test_a_head_that_is_not_there_is_refused(heads):
    module = Attending()
    points = {"attn": AttentionPoint(module, lambda frame, keys: torch.zeros(keys, dtype=torch.long))}
    with pytest.raises(ValueError, match="'attn'.* 0 .* 1"):
        under(cut(points, heads=heads), module, tiny.draw(1, 2, 8))


@pytest.mark.parametrize("frames, past", [(3, 0), (2, 3), (1, 2)])
def test_a_causal_mask_hides_later_frames_and_keeps_the_past(frames, past):
    tokens = 2
    module, x = Attending(frames * tokens), tiny.draw(2, past + frames * tokens, 8)
    number = torch.cat([torch.full((past,), -1), torch.arange(frames).repeat_interleave(tokens)])
    points = {"attn": AttentionPoint(module, lambda frame, keys: torch.zeros(keys, dtype=torch.long))}
    edit = AttentionEdit(points, {"*": lambda at, name, call: mask_later_frames(call, frames)})
    expected = masked(x, frames * tokens, number[None] <= number[past:, None])
    assert_same(under(edit, module, x), expected)


def test_queries_that_do_not_divide_into_frames_are_refused():
    module = Attending()
    points = {"attn": AttentionPoint(module, lambda frame, keys: torch.zeros(keys, dtype=torch.long))}
    edit = AttentionEdit(points, {"*": lambda at, name, call: mask_later_frames(call, 2)})
    with pytest.raises(ValueError, match="3 .* 3 .* 2 "):
        under(edit, module, tiny.draw(1, 3, 8))


# Registers that read the past


def blind_then(network, instrument):
    """The velocities after two pasts, own tokens alone in layer 0 and the instrument attached."""

    def own_alone(_at, _name, call):
        ages = call.key_age.clone()
        ages[ages == -1] = 1
        return torch.cat(
            [call.out[:, :, :-TOKENS], mask_other_frames(replace(call, key_age=ages))[:, :, -TOKENS:]], 2
        )

    x, sigma, found = tiny.draw(1, 1, 3, 20, 20, seed=3), torch.tensor([0.5]), []
    for seed in (1, 2):
        context = network.start(1)
        for frame in range(2):
            context = network.encode(tiny.draw(1, 1, 3, 20, 20, seed=10 * seed + frame), context)
        with AttentionEdit(network.attn_dict, {"blocks.0.attn": own_alone}) as first, instrument:
            first.on_pass(moment())
            instrument.on_pass(moment())
            found.append(network.denoise(x, sigma, context))
    return found


def test_registers_hand_no_past_on_under_a_cut_of_later_layers():
    network = variants.adapted(carried.Carried)
    later = [name for name in network.attn_dict if name != "blocks.0.attn"]
    one, other = blind_then(network, cut(network.attn_dict, later))
    assert_same(one, other)
    one, other = blind_then(network, cut(network.attn_dict, later[1:]))
    assert not torch.allclose(one, other, rtol=1e-3), "layer 1 is not cut"


def test_registers_that_read_nothing_stay_visible():
    ages = torch.tensor([-1, 1, 0])
    module, x = Attending(), tiny.draw(1, 3, 8)
    points = {
        name: AttentionPoint(part, lambda frame, keys: ages)
        for name, part in (("first", module), ("second", Attending()))
    }
    sees = (ages[None] == ages[:, None]) | (ages[None] == -1)
    assert_same(under(cut({"first": points["first"]}), module, x), masked(x, 3, sees))
    with cut(points) as both:  # all modules before are cut, too
        both.on_pass(moment())
        assert_same(points["first"].module(x), masked(x, 3, sees))
        assert_same(points["second"].module(x), masked(x, 3, sees))
    with cut(points, "second") as second:
        second.on_pass(moment())
        hidden = sees & ~((ages[None] == -1) & (ages[:, None] >= 0))
        assert_same(points["second"].module(x), masked(x, 3, hidden))


# On a model


def draw(network, *instruments):
    def on_pass(at):
        for instrument in instruments:
            instrument.on_pass(at)

    return rollout(network, tiny.draw(1, FRAMES, 3, 8, 8), sigma_grid(STEPS), on_pass=on_pass)


def test_the_identity_changes_no_bit_and_nothing_stays():
    network, kernel = tiny.model(), F.scaled_dot_product_attention
    plain = draw(network)
    with AttentionEdit(network.attn_dict, {"*": lambda at, name, call: call.out}) as edit:
        assert torch.equal(draw(network, edit), plain)
    assert F.scaled_dot_product_attention is kernel
    with pytest.raises(RuntimeError, match="stop"):
        with cut(network.attn_dict):
            raise RuntimeError("stop")
    assert F.scaled_dot_product_attention is kernel and torch.equal(draw(network), plain)


def test_a_result_is_computed_only_where_an_edit_needs_it():
    network, read = tiny.model(), {}

    def edit(at, name, call):
        own = mask_other_frames(call)
        read[at.frame] = "out" in vars(call)
        return own

    with AttentionEdit(network.attn_dict, {"*": edit}) as instrument:
        draw(network, instrument)
    assert read[0] and not read[max(read)], "where no key is older the result is the call's own"


def test_finished_frames_are_remembered_uncut_unless_asked():
    network = tiny.model()
    cuts = [cut(network.attn_dict), cut(network.attn_dict, roles=("denoise", "encode"))]
    frames = []
    for instrument in cuts:
        with instrument:
            frames.append(draw(network, instrument))
    # Without a past in any pass every frame is drawn alike from its own noise, so both agree there.
    assert_same(frames[0], frames[1])
    plain = draw(network)
    with cut(network.attn_dict, "blocks.0.attn", roles=("encode",)) as only_memory:
        assert not torch.allclose(draw(network, only_memory), plain, atol=1e-4)


def test_a_tap_beside_a_cut_hears_one_call_a_pass_in_either_order():
    network, heard = tiny.model(), []

    def sink(at, name, pattern):
        heard.append(pattern.keys)

    for order in (0, 1):
        tap, edit = AttentionTap(network.attn_dict, "*", sink), cut(network.attn_dict)
        first, second = (tap, edit) if order else (edit, tap)
        with first, second:
            draw(network, tap, edit)
    passes = FRAMES * STEPS + FRAMES - 1
    assert len(heard) == 2 * 2 * passes


@pytest.mark.parametrize("frame", [0, 3])
@pytest.mark.parametrize("load, side, tokens", [(tiny.model, 8, 4), (adapter_template.load, 20, 25)])
def test_a_pass_whose_keys_are_not_those_of_its_announced_frame_is_refused(load, side, tokens, frame):
    network, x = load(), tiny.draw(1, 1, 3, side, side)
    context = network.encode(x, network.start(1))
    ages, tap = [], AttentionTap(network.attn_dict, "*", lambda at, name, p: ages.append(p.key_age.tolist()))
    under(tap, lambda x: network.denoise(x, torch.ones(1), context), x, moment(frame=1))
    assert ages[0] == [1] * tokens + [0] * tokens
    expected = f"has {2 * tokens} keys at frame {frame}, .* {(frame + 1) * tokens} ages"
    with pytest.raises(ValueError, match=expected):
        under(tap, lambda x: network.denoise(x, torch.ones(1), context), x, moment(frame=frame))


def test_an_unannounced_pass_is_refused():
    network = tiny.model()
    with pytest.raises(ValueError):
        with cut(network.attn_dict):
            draw(network)


def test_a_module_that_makes_no_call_is_an_error():
    network = tiny.model()
    with pytest.raises(SilentHookError, match=r"blocks\.0\.attn"):
        with cut(network.attn_dict) as edit:
            edit.on_pass(moment())


def test_a_result_of_another_shape_is_refused():
    network = tiny.model()
    with pytest.raises(ValueError, match="'blocks.0.attn'"):
        with AttentionEdit(network.attn_dict, {"*": lambda at, name, call: call.out[:, :1]}) as edit:
            draw(network, edit)


def test_gradients_flow_through_a_cut():
    network = tiny.model()
    x = tiny.draw(1, 1, 3, 8, 8).requires_grad_()
    context = network.encode(tiny.draw(1, 1, 3, 8, 8, seed=1), network.start(1))
    with cut(network.attn_dict) as edit:
        edit.on_pass(moment(frame=1))
        network.denoise(x, torch.ones(1), context).sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


def test_two_patterns_for_one_module_are_refused_and_a_cut_takes_any_patterns():
    points, x = tiny.model().attn_dict, tiny.draw(2, 4, 8)
    with pytest.raises(ValueError, match=r"'blocks.0.attn' matches '\*' and 'blocks.0.attn'"):
        AttentionEdit(points, dict.fromkeys(["*", "blocks.0.attn"], lambda at, name, call: call.out))
    module = Attending(2)
    points = {"attn": AttentionPoint(module, lambda frame, keys: torch.tensor([1, 1, 0, 0]))}
    assert torch.equal(under(cut(points, ["*", "attn"]), module, x), under(cut(points), module, x))


@pytest.mark.parametrize("ages", [2, 5])
@pytest.mark.parametrize("instrument", [cut, lambda points: AttentionTap(points, "*", lambda *call: None)])
def test_as_many_ages_as_keys_or_a_refusal(instrument, ages):
    module = Attending()
    points = {"attn": AttentionPoint(module, lambda frame, keys: torch.zeros(ages, dtype=torch.long))}
    with pytest.raises(ValueError, match=f"'attn' has 4 keys at frame 2, .* {ages} ages"):
        under(instrument(points), module, tiny.draw(1, 4, 8))


class AttendingElsewhere(nn.Module):
    def forward(self, x):
        q = x.unflatten(-1, (2, -1)).transpose(1, 2)
        return F.scaled_dot_product_attention(q, q[:, :, :2], q[:, :, :2])


def test_the_diagonal_is_over_the_keys_a_query_is_part_of():
    module = AttendingElsewhere()
    points = {"attn": AttentionPoint(module, lambda frame, keys: torch.zeros(2, dtype=torch.long))}
    edit = AttentionEdit(points, {"*": lambda at, name, call: mask_other_frames(call)})
    with pytest.raises(ValueError, match="3 .* 2 "):
        under(edit, module, tiny.draw(1, 3, 8))
