"""The separated model: encoder once per frame, decoder at every step, nothing of a frame before it exists."""

from collections import Counter

import pytest
import tiny
import torch
from bounds import assert_same
from tiny_scd import WAYS, model

from framelens.diffusion.contract import CausalDiffuser
from framelens.diffusion.guidance import guide
from framelens.diffusion.sampler import rollout
from framelens.diffusion.schedule import sigma_grid
from framelens.hooks import AttentionTap, Trace
from framelens.models import scd

pytestmark = pytest.mark.usefixtures("all_float64")

FRAMES, SIDE = 4, 8
TOKENS = 4


def clip(seed: int = 0, frames: int = FRAMES) -> torch.Tensor:
    return torch.randn(2, frames, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


ACTIONS = torch.tensor([[0, 1, 2, 1], [2, 0, 1, 1]])
SIGMA = torch.tensor([[0.9, 0.5, 0.2, 0.7], [0.1, 0.8, 0.4, 1.0]])


def frame_by_frame(network, clean, noisy, sigma, cond):
    context, velocities = network.start(2, cond), []
    for frame in range(clean.shape[1]):
        span = slice(frame, frame + 1)
        velocities.append(network.denoise(noisy[:, span], sigma[:, frame], context))
        context = network.encode(clean[:, span], context)
    return torch.cat(velocities, dim=1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("conditions", [0, 3])
def test_the_parallel_pass_equals_frame_by_frame(way, conditions):
    network = model(way, conditions)
    cond = ACTIONS if conditions else None
    together = network.teacher_forced(clip(0), clip(1), SIGMA, cond)
    assert_same(together, frame_by_frame(network, clip(0), clip(1), SIGMA, cond))


@pytest.mark.parametrize("way", WAYS)
def test_several_noise_levels_share_one_encoder_pass(way):
    network = model(way)
    noisy, sigma = torch.cat([clip(1), clip(2)], dim=1), torch.cat([SIGMA, SIGMA.flip(1)], dim=1)
    fired = Counter()
    with Trace(
        network.hook_dict, "*.blocks.0.hook_resid_pre", lambda _at, name, _value: fired.update([name])
    ):
        both = network.teacher_forced(clip(0), noisy, sigma, ACTIONS)
    assert fired["encoder.blocks.0.hook_resid_pre"] == 1
    one = network.teacher_forced(clip(0), clip(2), SIGMA.flip(1), ACTIONS)
    assert_same(both[:, FRAMES:], one)


@pytest.mark.parametrize("way", WAYS)
def test_a_frame_changes_nothing_that_is_computed_before_it_exists(way):
    network, changed = model(way), clip(0)
    changed[:, 2] += 1
    before = network.teacher_forced(clip(0), clip(1), SIGMA, ACTIONS)
    after = network.teacher_forced(changed, clip(1), SIGMA, ACTIONS)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3], after[:, 3])


@pytest.mark.parametrize("way", WAYS)
def test_an_action_is_known_from_its_own_frame_on(way):
    network, changed = model(way), ACTIONS.clone()
    changed[:, 2] = 0
    before = network.teacher_forced(clip(0), clip(1), SIGMA, ACTIONS)
    after = network.teacher_forced(clip(0), clip(1), SIGMA, changed)
    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.allclose(before[:, 2], after[:, 2])


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_the_encoder_runs_once_per_frame_and_the_decoder_at_every_step(way):
    network, fired = model(way), Counter()

    def count(at, name, _value):
        fired[name.split(".")[0], at.role] += 1

    with Trace(network.hook_dict, "*.blocks.1.hook_resid_post", count) as trace:
        rollout(network, clip(), sigma_grid(5), ACTIONS, on_pass=trace.on_pass)
    expected = {("encoder", "encode"): FRAMES, ("decoder", "denoise"): 5 * FRAMES}
    if network.asks:
        expected |= {("encoder", "encode"): FRAMES - 1, ("encoder", "ask"): FRAMES}
    if way.startswith("prefix"):
        expected["decoder", "ask" if network.asks else "encode"] = FRAMES
    assert dict(fired) == expected


@pytest.mark.parametrize("way", WAYS)
def test_a_context_is_a_value(way):
    network = model(way)
    first = network.start(2, ACTIONS)
    second = network.encode(clip(0)[:, :1], first)
    network.encode(clip(3)[:, :1], first)
    for context in (first, second):
        again = network.denoise(clip(1)[:, :1], SIGMA[:, 0], context)
        assert_same(again, network.denoise(clip(1)[:, :1], SIGMA[:, 0], context))
    fresh = network.encode(clip(0)[:, :1], network.start(2, ACTIONS))
    third, wanted = (network.encode(clip(0)[:, 1:2], context) for context in (second, fresh))
    assert_same(third.features, wanted.features)


def test_keys_know_their_age():
    network, ages = model(), {}
    with AttentionTap(
        network.attn_dict, "*", lambda at, name, p: ages.update({(at.frame, name): p.key_age})
    ) as tap:
        rollout(network, clip(), sigma_grid(1), ACTIONS, on_pass=tap.on_pass)
    encoder, decoder = ages[1, "encoder.blocks.0.attn"], ages[1, "decoder.blocks.0.attn"]
    assert encoder.tolist() == [-1] * TOKENS + [1] * TOKENS + [0] * TOKENS
    assert decoder.tolist() == [1] * TOKENS + [0] * TOKENS


@pytest.mark.parametrize("way", WAYS)
def test_only_the_queries_of_the_frame_count(way):
    network, queries = model(way), []
    with AttentionTap(
        network.attn_dict, "decoder.*", lambda at, name, p: queries.append((at.role, p.queries))
    ) as tap:
        rollout(network, clip(), sigma_grid(1), ACTIONS, on_pass=tap.on_pass)
    assert {count for role, count in queries if role == "denoise"} == {TOKENS}


@pytest.mark.parametrize("way", WAYS)
def test_training_reaches_every_weight(way):
    network = model(way).train().requires_grad_(True)
    network.teacher_forced(clip(0), clip(1), SIGMA, ACTIONS).square().mean().backward()
    assert not [name for name, weight in network.named_parameters() if weight.grad is None]


def test_context_noise_is_for_training_only():
    network = model()
    still = network.teacher_forced(clip(0), clip(1), SIGMA, ACTIONS)
    assert torch.equal(still, network.teacher_forced(clip(0), clip(1), SIGMA, ACTIONS))
    network.train()
    assert not torch.equal(still, network.teacher_forced(clip(0), clip(1), SIGMA, ACTIONS))


@pytest.mark.parametrize("way", WAYS)
def test_steps_prepared_together_are_those_taken_alone(way):
    network, sigmas = model(way), sigma_grid(3)[:-1]
    context = network.encode(clip(0)[:, :1], network.start(2, ACTIONS))
    for sigma, prepared in zip(sigmas, network.at_steps(sigmas, context), strict=True):
        level, x = sigma.expand(2), clip(1)[:, :1]
        assert_same(network.denoise(x, level, prepared), network.denoise(x, level, context))


def test_query_tokens_begin_as_the_last_finished_frame_with_a_mark():
    network, seen = model("prefix, asking by frame"), []
    with Trace(
        network.hook_dict, "encoder.hook_embed", lambda at, _name, value: seen.append((at.role, value))
    ) as trace:
        rollout(network, clip(), sigma_grid(1), ACTIONS, on_pass=trace.on_pass)
    assert [role for role, _ in seen] == ["ask"] + ["encode", "ask"] * (FRAMES - 1)
    mark, start = network.queries.mark, network.queries.start
    first, embedded, asked = seen[0][1], seen[1::2], seen[2::2]
    assert_same(first, (start + mark).expand_as(first))
    for (_, frame), (_, query) in zip(embedded, asked, strict=True):
        assert_same(query, frame + mark)
    with pytest.raises(ValueError, match="query=frame.*start_token=false"):
        model(query="frame")


ASKING = [way for way in WAYS if "asking" in way]


@pytest.mark.parametrize(
    "changes", [{}, {"window": 1}, {"window": 2, "sink": 1}], ids=["all", "1", "2 and 1"]
)
@pytest.mark.parametrize("way", ASKING)
def test_reading_and_asking_are_one_pass_with_the_numbers_of_two(way, changes, monkeypatch):
    network, runs = model(way, **changes), Counter()
    for layer, block in enumerate(network.encoder.blocks):
        run = block.forward
        monkeypatch.setattr(
            block, "forward", lambda *given, at=layer, run=run: runs.update([at]) or run(*given)
        )
    once = twice = network.start(2, ACTIONS)
    for frame in range(FRAMES - 1):
        x = clip()[:, frame : frame + 1]
        runs.clear()
        once, twice = network.encode(x, once), network.ask(network.read(x, twice), 2)
        layer = network.config.query_layer
        assert runs == {0: 2 if layer else 3, 1: 3}  # one pass, and one or two
        assert_same(once.features, twice.features)
        assert once.frame == twice.frame and once.cache.tokens == twice.cache.tokens
        for kept in zip(once.cache.past(1), twice.cache.past(1), strict=True):
            assert_same(*kept)


def test_with_a_hook_reading_and_asking_are_two_passes():
    network, seen = model("prefix, asking"), []
    x, context = clip()[:, :1], network.start(2, ACTIONS)
    wanted = network.ask(network.read(x, context), 2).features
    with Trace(
        network.hook_dict, "encoder.blocks.0.hook_resid_pre", lambda _at, _name, value: seen.append(value)
    ):
        features = network.encode(x, context).features
    assert torch.equal(features, wanted) and [value.shape[1] for value in seen] == [TOKENS] * 2


def test_query_tokens_enter_at_their_layer():
    whole, late = model("prefix, asking"), model("prefix, asking", query_layer=1)
    assert [name for name, _ in whole.named_parameters()] == [name for name, _ in late.named_parameters()]
    fired = Counter()
    with Trace(
        late.hook_dict,
        "encoder.blocks.*.hook_resid_pre",
        lambda at, name, _value: fired.update([(name.split(".")[2], at.role)]),
    ) as trace:
        rollout(late, clip(), sigma_grid(1), ACTIONS, on_pass=trace.on_pass)
    assert fired == {("0", "encode"): FRAMES - 1, ("1", "encode"): FRAMES - 1, ("1", "ask"): FRAMES}
    features = [
        network.encode(clip()[:, :1], network.start(2, ACTIONS)).features for network in (whole, late)
    ]
    assert not torch.allclose(*features, atol=1e-3)
    for layer in (2, -1):
        with pytest.raises(ValueError, match=f"0 to 1 .*got {layer}"):
            model("prefix, asking", query_layer=layer)
    with pytest.raises(ValueError, match="query=past"):
        model(query_layer=1)


# Bounded context


@pytest.mark.parametrize(("window", "sink"), [(1, 0), (2, 0), (1, 1)])
def test_a_window_is_the_same_in_parallel_and_frame_by_frame(window, sink):
    network = model(window=window, sink=sink)
    together = network.teacher_forced(clip(0), clip(1), SIGMA, ACTIONS)
    alone = frame_by_frame(network, clip(0), clip(1), SIGMA, ACTIONS)
    assert_same(together, alone)
    full = model().teacher_forced(clip(0), clip(1), SIGMA, ACTIONS)
    assert not torch.allclose(together[:, 3], full[:, 3], atol=1e-4)


@pytest.mark.parametrize("window", [4, 9])
def test_a_window_that_covers_the_clip_changes_nothing(window):
    bounded, full = model(window=window, sink=1), model()
    for way in (frame_by_frame, scd.SCD.teacher_forced):
        assert_same(
            way(bounded, clip(0), clip(1), SIGMA, ACTIONS), way(full, clip(0), clip(1), SIGMA, ACTIONS)
        )


def test_a_bounded_history_takes_bounded_room():
    network = model(conditions=0, window=2, sink=1)
    context, sizes = network.start(2), []
    for frame in range(8):
        context = network.encode(clip(frame, 1), context)
        sizes.append(context.cache.storage.keys[0].shape[2] // TOKENS)
    assert context.cache.tokens == 3 * TOKENS and max(sizes[3:]) <= 4


def test_keys_behind_a_window_know_their_age():
    network, ages = model(conditions=0, window=1, sink=2), {}
    with AttentionTap(
        network.attn_dict, "encoder.blocks.0.attn", lambda at, name, p: ages.update({at.frame: p.key_age})
    ) as tap:
        rollout(network, clip(), sigma_grid(1), on_pass=tap.on_pass)
    assert [ages[frame].tolist()[::TOKENS] for frame in (-1, 0, 1, 2)] == [
        [-1], [-1, 0], [-1, 1, 0], [-1, 2, 1, 0]
    ]  # fmt: skip


# Guidance by context


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_guidance_by_context_runs_the_encoder_once_per_frame(way):
    network, fired = model(way), Counter()
    with Trace(
        network.hook_dict,
        "*.blocks.1.hook_resid_pre",
        lambda at, name, _v: fired.update([(name[:7], at.role)]),
    ) as trace:
        rollout(guide(network, 2.0, "context"), clip(), sigma_grid(3), ACTIONS, on_pass=trace.on_pass)
    assert fired["encoder", "ask" if network.asks else "encode"] == FRAMES
    assert fired["decoder", "denoise"] == 2 * 3 * FRAMES


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_guidance_by_context_moves_away_from_a_disturbed_past(way):
    network = model(way)
    plain = rollout(network, clip(), sigma_grid(2), ACTIONS)
    undisturbed = rollout(guide(network, 2.0, "context", strength=0.0), clip(), sigma_grid(2), ACTIONS)
    assert_same(undisturbed, plain)
    one, again, other = (
        rollout(guide(network, 2.0, "context", 0.5, seed), clip(), sigma_grid(2), ACTIONS)
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, again)
    assert not torch.allclose(one, plain, atol=1e-3) and not torch.allclose(one, other, atol=1e-3)


def test_guidance_by_context_needs_a_separated_model():
    with pytest.raises(ValueError):
        guide(tiny.model(), 2.0, "context")


# Without a start token, with text


def test_without_a_start_token_the_first_frame_must_be_given():
    network = model(start_token=False)
    with pytest.raises(ValueError, match=r"\b0 "):
        rollout(network, clip(), sigma_grid(2), ACTIONS)
    video = rollout(network, clip(), sigma_grid(2), ACTIONS, clip(1)[:, :1])
    assert torch.equal(video[:, :1], clip(1)[:, :1]) and video.isfinite().all()
    with pytest.raises(ValueError):
        network.teacher_forced(clip(0), clip(1), SIGMA, ACTIONS)


PROMPT = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("way", ["token_concat", "prefix", "residual, asking"])
def test_a_prompt_is_read_by_every_block_in_both_ways_to_run(way):
    network = model(way, 0, text_tokens=5, text_width=6)
    together = network.teacher_forced(clip(0), clip(1), SIGMA, PROMPT)
    alone = frame_by_frame(network, clip(0), clip(1), SIGMA, PROMPT)
    assert_same(together, alone)
    assert not torch.allclose(together, network.teacher_forced(clip(0), clip(1), SIGMA, PROMPT.flip(0)))


def test_a_prompt_of_another_shape_says_what_is_wanted():
    network = model("prefix", 0, text_tokens=5, text_width=6)
    with pytest.raises(ValueError, match=r"\[batch, .*5, 6.*\].*\(2, 4, 6\)"):
        network.start(2, PROMPT[:, :4])
    with pytest.raises(ValueError):
        network.start(2)
    with pytest.raises(ValueError, match="text_tokens.*text_width"):
        scd.config("tiny", text_tokens=5)


# As a whole


def test_it_meets_the_contract():
    assert isinstance(model(), CausalDiffuser)


def test_the_published_size_is_reached():
    with torch.device("meta"):
        network = scd.build(scd.config("scd-m", conditions=4))
    published = sum(weight.numel() for weight in network.parameters()) - 1024  # the start token
    assert abs(published - 233.61e6) < 5e3


def test_what_cannot_be_built_says_why():
    with pytest.raises(ValueError, match="'sum'.*token_concat"):
        scd.config("tiny", fusion="sum")
    with pytest.raises(ValueError, match=r"\b12 .*\b0\b"):
        scd.config("tiny", encoder_layers=12, decoder_layers=0)
    with pytest.raises(ValueError, match="'huge'.*tiny"):
        scd.config("huge")
