"""The separated model: encoder once per frame, decoder at every step, nothing of a frame before it exists."""

from collections import Counter

import pytest
import torch

from diffusion.sampler import CausalDiffuser, rollout
from diffusion.schedule import sigma_grid
from hooks import AttentionTap, Trace
from models import scd

FRAMES, SIDE = 4, 8
TOKENS = 4


def model(fusion: str = "token_concat", conditions: int = 3) -> scd.SCD:
    torch.manual_seed(0)
    config = scd.config(
        "tiny", height=SIDE, width=SIDE, encoder_layers=2, decoder_layers=2, heads=2, d_model=16,
        conditions=conditions, fusion=fusion, rope_axes=(4, 2, 2),
    )  # fmt: skip
    network = scd.build(config)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return network.eval().requires_grad_(False)


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


@pytest.mark.parametrize("fusion", scd.FUSIONS)
@pytest.mark.parametrize("conditions", [0, 3])
def test_the_parallel_pass_equals_frame_by_frame(fusion, conditions):
    network = model(fusion, conditions)
    cond = ACTIONS if conditions else None
    together = network.teacher_forced(clip(0), clip(1), SIGMA, cond)
    torch.testing.assert_close(
        together, frame_by_frame(network, clip(0), clip(1), SIGMA, cond), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("fusion", scd.FUSIONS)
def test_several_noise_levels_share_one_encoder_pass(fusion):
    network = model(fusion)
    noisy, sigma = torch.cat([clip(1), clip(2)], dim=1), torch.cat([SIGMA, SIGMA.flip(1)], dim=1)
    fired = Counter()
    with Trace(
        network.hook_dict, "*.blocks.0.hook_resid_pre", lambda _at, name, _value: fired.update([name])
    ):
        both = network.teacher_forced(clip(0), noisy, sigma, ACTIONS)
    assert fired["encoder.blocks.0.hook_resid_pre"] == 1
    one = network.teacher_forced(clip(0), clip(2), SIGMA.flip(1), ACTIONS)
    torch.testing.assert_close(both[:, FRAMES:], one, atol=1e-6, rtol=0)


@pytest.mark.parametrize("fusion", scd.FUSIONS)
def test_a_frame_changes_nothing_that_is_computed_before_it_exists(fusion):
    network, changed = model(fusion), clip(0)
    changed[:, 2] += 1
    before = network.teacher_forced(clip(0), clip(1), SIGMA, ACTIONS)
    after = network.teacher_forced(changed, clip(1), SIGMA, ACTIONS)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3], after[:, 3])


@pytest.mark.parametrize("fusion", scd.FUSIONS)
def test_an_action_is_known_from_its_own_frame_on(fusion):
    network, changed = model(fusion), ACTIONS.clone()
    changed[:, 2] = 0
    before = network.teacher_forced(clip(0), clip(1), SIGMA, ACTIONS)
    after = network.teacher_forced(clip(0), clip(1), SIGMA, changed)
    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.allclose(before[:, 2], after[:, 2])


@pytest.mark.parametrize("fusion", scd.FUSIONS)
def test_the_encoder_runs_once_per_frame_and_the_decoder_at_every_step(fusion):
    network, fired = model(fusion), Counter()

    def count(at, name, _value):
        fired[name.split(".")[0], at.role] += 1

    with Trace(network.hook_dict, "*.blocks.1.hook_resid_post", count) as trace:
        rollout(network, clip(), sigma_grid(5), ACTIONS, on_pass=trace.on_pass)
    expected = {("encoder", "encode"): FRAMES, ("decoder", "denoise"): 5 * FRAMES}
    if fusion == "prefix":
        expected["decoder", "encode"] = FRAMES
    assert dict(fired) == expected


@pytest.mark.parametrize("fusion", scd.FUSIONS)
def test_a_context_is_a_value(fusion):
    network = model(fusion)
    first = network.start(2, ACTIONS)
    second = network.encode(clip(0)[:, :1], first)
    network.encode(clip(3)[:, :1], first)
    for context in (first, second):
        again = network.denoise(clip(1)[:, :1], SIGMA[:, 0], context)
        torch.testing.assert_close(
            again, network.denoise(clip(1)[:, :1], SIGMA[:, 0], context), atol=0, rtol=0
        )
    fresh = network.encode(clip(0)[:, :1], network.start(2, ACTIONS))
    third, wanted = (network.encode(clip(0)[:, 1:2], context) for context in (second, fresh))
    torch.testing.assert_close(third.features, wanted.features, atol=1e-6, rtol=0)


def test_keys_know_their_age():
    network, ages = model(), {}
    with AttentionTap(
        network.attn_dict, "*", lambda at, name, p: ages.update({(at.frame, name): p.key_age})
    ) as tap:
        rollout(network, clip(), sigma_grid(1), ACTIONS, on_pass=tap.on_pass)
    encoder, decoder = ages[1, "encoder.blocks.0.attn"], ages[1, "decoder.blocks.0.attn"]
    assert encoder.tolist() == [-1] * TOKENS + [1] * TOKENS + [0] * TOKENS
    assert decoder.tolist() == [1] * TOKENS + [0] * TOKENS


@pytest.mark.parametrize("fusion", scd.FUSIONS)
def test_training_reaches_every_weight(fusion):
    network = model(fusion).train().requires_grad_(True)
    network.teacher_forced(clip(0), clip(1), SIGMA, ACTIONS).square().mean().backward()
    assert not [name for name, weight in network.named_parameters() if weight.grad is None]


def test_context_noise_is_for_training_only():
    network = model()
    still = network.teacher_forced(clip(0), clip(1), SIGMA, ACTIONS)
    assert torch.equal(still, network.teacher_forced(clip(0), clip(1), SIGMA, ACTIONS))
    network.train()
    assert not torch.equal(still, network.teacher_forced(clip(0), clip(1), SIGMA, ACTIONS))


def test_it_meets_the_contract():
    assert isinstance(model(), CausalDiffuser)


def test_the_published_size_is_reached():
    with torch.device("meta"):
        network = scd.build(scd.config("scd-m", conditions=4))
    published = sum(weight.numel() for weight in network.parameters()) - network.start_token.numel()
    assert abs(published - 233.61e6) < 5e3


def test_what_cannot_be_built_says_why():
    with pytest.raises(ValueError, match="no fusion is called 'sum'; there are token_concat"):
        scd.config("tiny", fusion="sum")
    with pytest.raises(ValueError, match="at least one layer each, got 12 and 0"):
        scd.config("tiny", encoder_layers=12, decoder_layers=0)
    with pytest.raises(ValueError, match="no scd preset is called 'huge'; there are tiny"):
        scd.config("huge")
