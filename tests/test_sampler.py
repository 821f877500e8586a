"""The rollout: the true velocity leads to the true video, and every pass is announced as it is made."""

import ast
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from bounds import assert_same

from framelens.diffusion import sampler
from framelens.diffusion.contract import CausalDiffuser, Geometry
from framelens.diffusion.guidance import Guided
from framelens.diffusion.sampler import ForwardPass, fresh_noise, rollout, sample, take_step
from framelens.diffusion.schedule import sigma_grid

BATCH, SHAPE = 2, (3, 8, 8)

pytestmark = pytest.mark.usefixtures("float64")


class Recorder:
    """A model without a network: it knows the true video and writes down what it is asked."""

    hook_dict, attn_dict, null_condition = {}, {}, 0

    def __init__(self, truth, chunk=1):
        self.truth, self.passes, self.encoded, self.levels = truth, [], [], []
        self.geometry = Geometry(chunk, 3, 8, 8, 4, 2, 2, 16)

    def start(self, batch, cond=None):
        return SimpleNamespace(frame=0, cond=cond)

    def encode(self, x, context):
        self.passes.append(("encode", context.frame))
        self.encoded.append(x.clone())
        return SimpleNamespace(frame=context.frame + x.shape[1], cond=context.cond)

    def denoise(self, x, sigma, context):
        self.passes.append(("denoise", context.frame))
        self.levels.append(sigma)
        clean = self.truth[:, context.frame : context.frame + x.shape[1]]
        return (x - clean) / sigma[:, None, None, None, None]


def video(frames=4, seed=0):
    return tiny.draw(BATCH, frames, *SHAPE, seed=seed)


def listen(model, *args, **settings):
    """The rollout and its announcements, checked against what the model was asked right afterwards."""
    announced = []

    def on_pass(at):
        assert len(model.passes) == len(announced), "announced after the pass, or not at all"
        announced.append(at)

    sampled = rollout(model, *args, on_pass=on_pass, **settings)
    assert [(at.role, at.frame) for at in announced] == model.passes
    return sampled, announced


@pytest.mark.parametrize(("steps", "shift"), [(1, 1.0), (2, 1.0), (25, 1.0), (7, 4.0)])
def test_the_true_velocity_gives_the_true_video(steps, shift):
    truth = video()
    sampled = rollout(Recorder(truth), video(seed=1), sigma_grid(steps, shift))
    assert_same(sampled, truth)


def test_chunks_of_frames_are_made_together():
    truth = video(6)
    model = Recorder(truth, chunk=3)
    sampled, announced = listen(model, video(6, seed=1), sigma_grid(2))
    assert_same(sampled, truth)
    assert model.passes == [("denoise", 0), ("denoise", 0), ("encode", 0), ("denoise", 3), ("denoise", 3)]
    assert model.encoded[0].shape == (BATCH, 3, *SHAPE)


def test_a_free_run_announces_every_pass_it_makes():
    _, announced = listen(Recorder(video(3)), video(3, seed=1), sigma_grid(2), given=video(3)[:, :1])
    assert announced == [
        ForwardPass(0, 0, 0.0, "encode"),
        ForwardPass(1, 0, 1.0, "denoise"),
        ForwardPass(1, 1, 0.5, "denoise"),
        ForwardPass(1, 0, 0.0, "encode"),
        ForwardPass(2, 0, 1.0, "denoise"),
        ForwardPass(2, 1, 0.5, "denoise"),
    ]


def test_teacher_forcing_announces_every_pass_it_makes():
    truth = video(2)
    _, announced = listen(Recorder(truth), video(2, seed=1), sigma_grid(1), given=truth, teacher_forced=True)
    assert announced == [
        ForwardPass(0, 0, 1.0, "denoise"),
        ForwardPass(0, 0, 0.0, "encode"),
        ForwardPass(1, 0, 1.0, "denoise"),
    ]


def test_frames_not_asked_for_cost_one_pass_and_are_returned_as_given():
    given = video(4)
    model = Recorder(video(4, seed=2))
    sampled, _ = listen(
        model, video(4, seed=1), sigma_grid(2), given=given, teacher_forced=True, denoised_frames={2}
    )
    assert model.passes == [("encode", 0), ("encode", 1), ("denoise", 2), ("denoise", 2), ("encode", 2)]
    assert torch.equal(sampled[:, [0, 1, 3]], given[:, [0, 1, 3]])
    assert_same(sampled[:, 2], model.truth[:, 2])


def test_guidance_announces_both_branches():
    model = Recorder(video(2))
    guided, cond = Guided(model, 2.0), torch.ones(BATCH, 2, dtype=torch.long)
    announced = []
    rollout(guided, video(2, seed=1), sigma_grid(1), cond, on_pass=announced.append)
    assert announced == [
        ForwardPass(0, 0, 1.0, "denoise", "cond"),
        ForwardPass(0, 0, 1.0, "denoise", "uncond"),
        ForwardPass(0, 0, 0.0, "encode", "cond"),
        ForwardPass(0, 0, 0.0, "encode", "uncond"),
        ForwardPass(1, 0, 1.0, "denoise", "cond"),
        ForwardPass(1, 0, 1.0, "denoise", "uncond"),
    ]
    assert model.passes == [(at.role, at.frame) for at in announced]


def test_a_free_run_remembers_its_own_frames():
    model, given = Recorder(video(4)), video(4, seed=2)[:, :1]
    sampled = rollout(model, video(4, seed=1), sigma_grid(2), given=given)
    assert torch.equal(sampled[:, :1], given)
    assert torch.equal(torch.cat(model.encoded, dim=1), sampled[:, :3])


def test_teacher_forcing_remembers_the_true_frames():
    model, given = Recorder(video(4)), video(4, seed=2)
    rollout(model, video(4, seed=1), sigma_grid(2), given=given, teacher_forced=True)
    assert torch.equal(torch.cat(model.encoded, dim=1), given[:, :3])


def test_the_model_is_told_the_level_of_every_clip():
    model = Recorder(video(1))
    rollout(model, video(1, seed=1), sigma_grid(4))
    assert torch.equal(torch.stack(model.levels), sigma_grid(4)[:-1, None].expand(-1, BATCH))


def test_sampling_changes_neither_the_noise_nor_what_was_given():
    noise, given = video(seed=1), video(seed=2)
    before = noise.clone(), given.clone()
    rollout(Recorder(video()), noise, sigma_grid(2), given=given[:, :2])
    assert torch.equal(noise, before[0]) and torch.equal(given, before[1])


def test_a_free_run_of_a_network_goes_on_from_any_of_its_frames():
    model, noise = tiny.model(), tiny.draw(1, 4, 3, 8, 8)
    whole = rollout(model, noise, sigma_grid(2))
    assert_same(rollout(model, noise, sigma_grid(2), given=whole[:, :2]), whole)


def test_the_contract_is_met_by_networks_and_by_guided_networks():
    model = tiny.model(conditions=2)
    for candidate in (model, Guided(model, 2.0), Recorder(video())):
        assert isinstance(candidate, CausalDiffuser)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"given": video(2), "teacher_forced": True}, r"\b4 .*\b2\b"),
        ({"teacher_forced": True}, r"\b4 .*\b0\b"),
        ({"given": video(5)}, r"\b5 .*\b4\b"),
        ({"denoised_frames": {1}}, "teacher_forced=True"),
        ({"given": video(4), "denoised_frames": {1}}, "teacher_forced=True"),
    ],
)
def test_what_cannot_be_sampled_is_refused_before_the_first_pass(settings, message):
    model = Recorder(video())
    with pytest.raises(ValueError, match=message):
        rollout(model, video(), sigma_grid(2), **settings)
    assert model.passes == []


@pytest.mark.parametrize(("frames", "given"), [(4, 0), (6, 2)])
def test_frames_that_do_not_fill_the_chunks_are_refused(frames, given):
    with pytest.raises(ValueError, match=rf"3 .*\b{frames} .*\b{given} "):
        rollout(Recorder(video(6), chunk=3), video(frames), sigma_grid(2), given=video(given))


# Fresh noise between steps


def test_noising_anew_is_the_loop_written_by_hand():
    model, noise, given = tiny.model(), video(3, seed=1)[:1], video(3, seed=2)[:1, :1]
    sigmas = sigma_grid(3, shift=5.0)
    sampled = rollout(model, noise, sigmas, given=given, renoise=7)
    context, frames = model.encode(given, model.start(1)), [given]
    for frame in (1, 2):
        x = noise[:, frame : frame + 1]
        for step, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
            clean = x - sigma * model.denoise(x, sigma.expand(1), context)
            x = (1 - following) * clean + following * fresh_noise(x, 7, frame, step)
        frames.append(x)
        context = model.encode(x, context)
    assert_same(sampled, torch.cat(frames, dim=1))
    assert not torch.allclose(sampled, rollout(model, noise, sigmas, given=given), atol=1e-2)


def test_behind_the_last_step_stands_the_predicted_frame_itself():
    x, velocity, fresh = (video(1, seed=seed) for seed in range(3))
    assert torch.equal(take_step(x, velocity, 0.25, 0.0, fresh), x - 0.25 * velocity)
    assert_same(take_step(x, velocity, 0.25, 0.0), x - 0.25 * velocity)


def test_the_true_velocity_gives_the_true_video_also_when_noised_anew():
    truth = video(3)
    sampled = rollout(Recorder(truth), video(3, seed=1), sigma_grid(4, 5.0), renoise=0)
    assert_same(sampled, truth)


def test_fresh_noise_follows_from_seed_frame_and_step_and_from_nothing_else():
    like = video(1)
    assert torch.equal(fresh_noise(like, 1, 2, 3), fresh_noise(0 * like, 1, 2, 3))
    for other in ((0, 2, 3), (1, 0, 3), (1, 2, 0)):
        assert not torch.equal(fresh_noise(like, 1, 2, 3), fresh_noise(like, *other))
    model, noise, clean = tiny.model(), video(3, seed=1), video(3, seed=2)
    every = rollout(model, noise, sigma_grid(3), given=clean, teacher_forced=True, renoise=0)
    last = rollout(
        model, noise, sigma_grid(3), given=clean, teacher_forced=True, denoised_frames={2}, renoise=0
    )
    assert_same(every[:, 2], last[:, 2])  # whichever other frames are drawn


# The loop


@pytest.mark.parametrize("renoise", [None, 3])
def test_the_loop_goes_on_from_any_step_of_its_own_path(renoise):
    model, levels = tiny.model(), sigma_grid(4, shift=3.0).tolist()
    context, asked = model.start(BATCH), []

    def velocity(x, step):
        asked.append(step)
        return model.denoise(x, torch.full((BATCH,), levels[step]), context)

    def fresh(x, step):
        return None if renoise is None else fresh_noise(x, renoise, 0, step)

    path = list(sample(video(1), levels, velocity, fresh))
    assert len(path) == 5 and asked == [0, 1, 2, 3] and torch.equal(path[0], video(1))
    for first in range(5):
        asked.clear()
        rest = list(sample(path[first], levels, velocity, fresh, first))
        assert asked == list(range(first, 4))
        assert all(torch.equal(a, b) for a, b in zip(rest, path[first:], strict=True))
    whole = rollout(model, video(1), sigma_grid(4, shift=3.0), renoise=renoise)
    torch.testing.assert_close(whole, path[-1], atol=1e-5, rtol=1e-5)


def test_the_sampler_imports_nothing_of_guidance():
    tree = ast.parse(Path(sampler.__file__).read_text())
    named = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [name for name in named if "guidance" in name or "around" in name]


def test_prepared_steps_are_handed_to_the_model_one_by_one():
    class Prepared(Recorder):
        def at_steps(self, sigmas, context):
            return [SimpleNamespace(frame=context.frame, cond=None, sigma=sigma) for sigma in sigmas]

        def denoise(self, x, sigma, context):
            assert torch.equal(sigma, context.sigma.expand(BATCH))
            return super().denoise(x, sigma, context)

    truth = video(2)
    sampled = rollout(Prepared(truth), video(2, seed=1), sigma_grid(3))
    torch.testing.assert_close(sampled, truth, atol=1e-5, rtol=0)


def test_a_model_that_asks_and_cannot_is_refused():
    class Asking(Recorder):
        asks = True

    with pytest.raises(ValueError, match=r"offers read\(x, context\) and ask"):
        rollout(Asking(video(2)), video(2), sigma_grid(1))


@pytest.mark.parametrize("chunk", [1, 2])
def test_the_first_chunk_that_is_sampled_may_take_more_steps(chunk):
    truth, first, later = video(6), sigma_grid(4), sigma_grid(2)
    model = Recorder(truth, chunk)
    sampled, passes = listen(model, video(6, seed=1), later, given=truth[:, :2], first_sigmas=first)
    assert_same(sampled, truth)
    steps = {
        frame: [at.sigma for at in passes if at.role == "denoise" and at.frame == frame] for frame in range(6)
    }
    for frame in range(0, 6, chunk):
        wanted = [] if frame < 2 else first if frame == 2 else later
        assert steps[frame] == [float(level) for level in wanted[:-1]]
    same = rollout(Recorder(truth, chunk), video(6, seed=1), later, given=truth[:, :2], first_sigmas=later)
    assert torch.equal(same, rollout(Recorder(truth, chunk), video(6, seed=1), later, given=truth[:, :2]))
