"""FAR-Long: the velocities of the released code, frame by frame, while frames turn coarse one by one."""

import re

import far_long_reference as reference
import pytest
import tiny
import torch
from bounds import assert_same
from precision import as_default
from tiny_official import CHANNELS, COARSE, LAYERS, far_long_weights

from framelens import models
from framelens.diffusion.guidance import guide
from framelens.diffusion.sampler import rollout
from framelens.diffusion.schedule import sigma_grid
from framelens.hooks import AttentionTap, Edit, Trace
from framelens.models import far_long, official
from framelens.models.loading.checkpoint import Checkpoint

pytestmark = pytest.mark.usefixtures("all_float64")

FRAMES, SHORT = 6, 3
HEIGHT, WIDTH = 2, 4
FINE_TOKENS, COARSE_TOKENS = HEIGHT * WIDTH, 2
ACTIONS = torch.tensor([[0, 3, 1, 2, 4, 1]])
SIGMA = torch.tensor([0.375])


def saved(folder, held, name="far_long.pth"):
    torch.save(held, folder / name)
    return str(folder / name)


def loaded(folder, held=None, **said):
    said = {"height": HEIGHT, "width": WIDTH, "short_frames": SHORT} | said
    return as_default(models.load(saved(folder, far_long_weights() if held is None else held), **said))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A network whose gates are all open; no test may change it."""
    return loaded(tmp_path_factory.mktemp("far_long"))


def clip(frames=FRAMES, seed=0, scale=1):
    return tiny.draw(1, frames, CHANNELS, scale * HEIGHT, scale * WIDTH, seed=seed)


def remembered(model, frames, cond=ACTIONS):
    context = model.start(len(frames), cond)
    for frame in frames.split(1, dim=1):
        context = model.encode(frame, context)
    return context


def traced(model, **extra):
    """The hook points that fire, and how often, in a teacher-forced rollout, and its video."""
    seen = []
    with Trace(model.hook_dict, "*", lambda at, name, value: seen.append((name, at, value.shape))) as trace:
        noise = clip(seed=1)
        video = rollout(
            model, noise, sigma_grid(2), ACTIONS, clip(), teacher_forced=True, on_pass=trace.on_pass, **extra
        )
    return seen, video


# The same numbers


@pytest.mark.parametrize(
    ("short", "coarse", "patch", "rows"),
    [(3, 2, 1, 5), (1, 2, 1, 5), (2, 2, 1, 0), (2, 4, 2, 5), (FRAMES, 2, 1, 5), (FRAMES + 1, 2, 1, 5)],
)
def test_frame_by_frame_it_agrees_with_the_released_pass_over_all_frames(
    tmp_path, short, coarse, patch, rows
):
    held = far_long_weights(rows, 128, coarse, patch)
    said = {"height": patch * HEIGHT, "width": patch * WIDTH, "patch": patch, "short_frames": short}
    model = loaded(tmp_path, held, **said)
    assert (model.config.context_patch, model.config.channels) == (coarse, CHANNELS)
    video, noisy = clip(scale=patch), clip(seed=1, scale=patch)
    context = model.start(1, ACTIONS if rows else None)
    for frame in range(FRAMES):
        now = slice(frame, frame + 1)
        ours = model.denoise(noisy[:, now], SIGMA, context)[0, 0]
        theirs = reference.far_long(
            held, video[0, :frame], noisy[0, frame], 375.0, ACTIONS[0] if rows else None, short, coarse, patch
        )
        assert theirs.std() > 0.1
        assert_same(ours, theirs)
        context = model.encode(video[:, now], context)


def test_the_reference_reads_every_tensor_whose_output_is_used():
    held = far_long_weights()
    for weight in held.values():
        weight.requires_grad_(True)
    video = clip()[0]
    reference.far_long(
        held, video[:-1], video[-1], 375.0, ACTIONS[0], SHORT, COARSE
    ).square().sum().backward()
    unread = [name for name, weight in held.items() if weight.grad is None or not weight.grad.any()]
    # The last block's coarse queries lead nowhere but to an output that is not used.
    last = f"transformer_blocks.{LAYERS - 1}.attn"
    theirs = [f"{last}.add_q_proj.bias", f"{last}.add_q_proj.weight", f"{last}.norm_added_q.weight"]
    assert sorted(unread) == ["context_proj_out.bias", "context_proj_out.weight", *theirs]


def test_a_coarse_frame_still_counts_and_a_fine_one_counts_differently(model, tmp_path):
    video, x = clip(), clip(1, seed=1)
    velocity = model.denoise(x, SIGMA, remembered(model, video[:, :5]))
    changed = video.clone()
    changed[:, 0] = clip(1, seed=7)[:, 0]
    assert not torch.allclose(model.denoise(x, SIGMA, remembered(model, changed[:, :5])), velocity, atol=1e-4)
    all_fine = loaded(tmp_path, short_frames=FRAMES)
    assert not torch.allclose(
        all_fine.denoise(x, SIGMA, remembered(all_fine, video[:, :5])), velocity, atol=1e-4
    )


def test_steps_prepared_together_are_those_taken_alone(model):
    context, sigmas = remembered(model, clip(4)), sigma_grid(3)[:-1]
    for sigma, prepared in zip(sigmas, model.at_steps(sigmas, context), strict=True):
        x = clip(1, seed=1)
        assert_same(model.denoise(x, sigma[None], prepared), model.denoise(x, sigma[None], context))


def test_clips_of_a_batch_do_not_see_each_other(model):
    both, cond = torch.cat([clip(5), clip(5, seed=3)]), torch.cat([ACTIONS, ACTIONS.flip(1)])
    x, sigma = torch.cat([clip(1, seed=1)] * 2), SIGMA.expand(2)
    together = model.denoise(x, sigma, remembered(model, both, cond))
    alone = model.denoise(x[1:], SIGMA, remembered(model, both[1:], cond[1:]))
    assert_same(together[1:], alone)


# Contexts are values


@pytest.mark.parametrize("frames", [1, 2, 3, 4])
def test_a_context_answers_the_same_after_newer_ones_exist(model, frames):
    x, old = clip(1, seed=1), remembered(model, clip(frames))
    fresh = model.denoise(x, SIGMA, old)
    futures = [model.encode(ending, old) for ending in clip(2, seed=3).split(1, dim=1)]
    velocities = [model.denoise(x, SIGMA, future) for future in futures]
    further = model.encode(x, futures[0])
    assert torch.equal(model.denoise(x, SIGMA, old), fresh)
    for future, velocity in zip(futures, velocities, strict=True):
        assert torch.equal(model.denoise(x, SIGMA, future), velocity)
    assert not torch.allclose(*velocities) and further.frame == frames + 2


def test_a_context_keeps_coarse_frames_coarse(model):
    for frames in range(1, FRAMES):
        cache, far = remembered(model, clip(frames)).cache, max(0, frames + 1 - SHORT)
        assert cache.tokens == far * COARSE_TOKENS + (frames - far) * FINE_TOKENS


# Instruments


def test_instruments_leave_the_output_as_it_was_and_each_point_fires_once_a_pass(model):
    passes = []
    plain = rollout(
        model, clip(seed=1), sigma_grid(2), ACTIONS, clip(), teacher_forced=True, on_pass=passes.append
    )
    seen, video = traced(model)
    assert torch.equal(video, plain)
    assert len(seen) == len(passes) * len(model.hook_dict)
    assert {name for name, *_ in seen} == set(model.hook_dict)


def test_what_a_pass_holds_ends_with_the_frame_at_hand(model):
    sizes = {}
    for name, at, shape in traced(model)[0]:
        if name == "blocks.0.hook_resid_post":
            sizes.setdefault((at.role, at.frame), shape[1])
    assert {sizes["denoise", frame] for frame in range(FRAMES)} == {FINE_TOKENS}
    recoded = COARSE_TOKENS + (SHORT - 1) * FINE_TOKENS
    assert [sizes["encode", frame] for frame in range(4)] == [FINE_TOKENS, FINE_TOKENS, recoded, recoded]


def test_patterns_are_whole_know_the_age_of_coarse_keys_and_see_no_future(model):
    ages, checked = {}, []

    def sink(at, name, pattern):
        ages[at.role, at.frame] = pattern.key_age
        rows = pattern.rows(0, pattern.q.shape[2])
        assert_same(rows.sum(-1), torch.ones(rows.shape[:-1]))
        checked.append((at, name, tuple(pattern.q.shape)))

    with AttentionTap(model.attn_dict, "*", sink) as tap:
        video = rollout(
            model, clip(seed=1), sigma_grid(1), ACTIONS, clip(), teacher_forced=True, on_pass=tap.on_pass
        )
    assert torch.equal(
        video, rollout(model, clip(seed=1), sigma_grid(1), ACTIONS, clip(), teacher_forced=True)
    )
    assert {shape[2] for _, _, shape in checked} == {FINE_TOKENS}
    for frame in range(FRAMES):
        far = max(0, frame + 1 - SHORT)
        tokens = [COARSE_TOKENS] * far + [FINE_TOKENS] * (frame + 1 - far)
        expected = torch.arange(frame, -1, -1).repeat_interleave(torch.tensor(tokens))
        assert torch.equal(ages["denoise", frame], expected)
    # While frame 4 is read, what will be coarse for frame 5 is coarse already.
    assert torch.bincount(ages["encode", 4]).tolist() == [8, 8, 2, 2, 2]


def test_a_pattern_expects_what_the_kernel_gives(model):
    given = {}
    kernel = torch.nn.functional.scaled_dot_product_attention
    context = remembered(model, clip(5))

    def listening(q, k, v):
        given["values"], given["out"] = v, kernel(q, k, v)
        return given["out"]

    def sink(at, name, pattern):
        assert_same(pattern.expect(given["values"]), given["out"])
        given["heard"] = given.get("heard", 0) + 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", listening)
        with AttentionTap(model.attn_dict, "*", sink):
            model.denoise(clip(1, seed=1), SIGMA, context)
            model.encode(clip(1, seed=2), context)
    assert given["heard"] == 2 * LAYERS


def test_an_edit_at_each_point_changes_the_output(model):
    context, x = remembered(model, clip(4)), clip(1, seed=1)
    denoised = model.denoise(x, SIGMA, context)
    encoded = model.denoise(x, SIGMA, model.encode(x, context))
    for name in model.hook_dict:
        with Edit(model.hook_dict, {name: lambda at, name, value: 1.5 * value + 0.1}):
            assert not torch.equal(model.denoise(x, SIGMA, context), denoised), name
            changed = model.encode(x, context)
        # Of the last block only keys and values are kept.
        after = ("attn.hook_q", "attn.hook_rot_q", "attn.hook_z", "attn_out", "resid_mid", "mlp_out", "post")
        is_kept = not (name.startswith(f"blocks.{LAYERS - 1}.") and name.endswith(after))
        assert torch.equal(model.denoise(x, SIGMA, changed), encoded) != is_kept, name


@pytest.mark.parametrize("frame", range(1, FRAMES))
def test_changing_a_frame_or_an_action_changes_nothing_before_it(model, frame):
    video, noise, sigmas = clip(), clip(seed=1), sigma_grid(1)
    before = rollout(model, noise, sigmas, ACTIONS, video, teacher_forced=True)
    changed, actions = video.clone(), ACTIONS.clone()
    changed[:, frame], actions[:, frame] = clip(1, seed=5)[:, 0], 0 if ACTIONS[0, frame] else 1
    after = rollout(model, noise, sigmas, ACTIONS, changed, teacher_forced=True)
    assert torch.equal(after[:, : frame + 1], before[:, : frame + 1])
    for later in range(frame + 1, FRAMES):
        assert not torch.equal(after[:, later], before[:, later])
    acted = rollout(model, noise, sigmas, actions, video, teacher_forced=True)
    assert torch.equal(acted[:, :frame], before[:, :frame])
    assert not torch.equal(acted[:, frame], before[:, frame])


def test_a_guided_rollout_runs_with_the_null_action(model):
    noise = clip(seed=1)
    unguided = rollout(model, noise, sigma_grid(2), torch.full_like(ACTIONS, 4))
    assert model.takes == "actions" and model.null_condition == 4
    assert_same(rollout(guide(model, 0.0), noise, sigma_grid(2), ACTIONS), unguided)


# Files


@pytest.mark.parametrize(
    ("preset", "width", "parameters"), [("far-b-long", 768, 158e6), ("far-m-long", 1024, 281e6)]
)
def test_the_released_sizes_are_read_off(tmp_path, preset, width, parameters):
    shapes = reference.shapes(width, 32, 12, 4, rows=5)
    held = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    model, metadata = far_long.read(Checkpoint(tmp_path / "long.pth", held), dict(far_long.DEFAULTS))
    assert model.config == far_long.config(preset)
    assert sum(weight.numel() for weight in model.parameters()) == pytest.approx(parameters, rel=0.01)
    assert metadata["network"] == "far_long" and metadata["latent"]


def test_only_the_right_family_recognises_it():
    names = far_long_weights().keys()
    assert far_long.recognises(names) and not official.recognises(names)
    assert official.recognises(names - {"context_embedder.weight"})
    assert not official.recognises({"weight"}) and not far_long.recognises({"weight"})


def test_a_loaded_model_says_what_it_is_and_is_kept_in_a_checkpoint_of_ours(model, tmp_path):
    assert model.latent and model.source.metadata["network"] == "far_long"
    models.save(model, tmp_path / "own.safetensors")
    again = as_default(models.load(str(tmp_path / "own.safetensors")))
    assert again.config == model.config and again.latent and again.takes == "actions"
    x = clip(1, seed=1)
    velocities = [m.denoise(x, SIGMA, remembered(m, clip(5))) for m in (model, again)]
    assert_same(*velocities)


@pytest.mark.parametrize(
    ("changes", "said", "message"),
    [
        ({"context_embedder.weight": (64, 12)}, {}, r"\b4 "),
        ({"context_embedder.weight": (64,)}, {}, r"\(64,\)"),
        ({"label_embedder.embedding_table.weight": (3, 64)}, {}, r"1 .*\['label_embedder\."),
        (
            {"transformer_blocks.1.attn.to_add_out.bias": (64,)},
            {},
            r"1 .*\['transformer_blocks\.1\.attn",
        ),
        ({"transformer_blocks.0.attn.add_q_proj.bias": None}, {}, r"1 .*\['transformer_blocks\.0"),
        ({"proj_out.bias": (5,)}, {}, r"proj_out\.bias.*\(5,\).*\(4,\)"),
        ({}, {"height": 3}, " 2 .* 1 .* 3 x 4"),
        ({}, {"short_frames": 0}, "short_frames.* 1.* 0"),
        ({}, {"height": 0}, "height.* 1.* 0"),
        ({}, {"fusion": "add"}, "fusion.*height, width, patch, short_frames"),
        ({}, {"window": 3}, "FAR-Long"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, changes, said, message):
    held = far_long_weights()
    for name, shape in changes.items():
        held.pop(name, None)
        if shape is not None:
            held[name] = torch.ones(shape)
    with pytest.raises(ValueError) as error:
        loaded(tmp_path, held, **said)
    assert re.search(message, str(error.value)) and len(str(error.value).splitlines()) == 1


def test_presets_that_do_not_exist_are_answered_with_those_that_do():
    with pytest.raises(ValueError, match="'x'.*far-b-long, far-m-long"):
        far_long.config("x")
