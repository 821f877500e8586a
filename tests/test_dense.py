"""The dense network: the same answers cached and in parallel, no look ahead, and instruments work on it."""

import pytest
import tiny
import torch
from bounds import assert_same
from torch import nn
from torch.nn import functional as F

from framelens.diffusion.sampler import ForwardPass, rollout
from framelens.diffusion.schedule import add_noise, sigma_grid
from framelens.hooks import AttentionTap, Edit, Trace
from framelens.models import dense
from framelens.models.parts.blocks import AxialRope, rotate
from framelens.models.parts.elementwise import TanhGELU
from framelens.models.parts.history import CleanThenNoisy, FrameCausal, Reach

pytestmark = pytest.mark.usefixtures("all_float64")

BATCH, FRAMES, TOKENS = 2, 4, 4
ACTIONS = torch.tensor([[0, 1, 2, 0], [0, 2, 2, 1]])
CONDITIONS = {"unconditional": None, "actions": ACTIONS, "labels": torch.tensor([2, 0])}


def clip(frames=FRAMES, seed=0):
    return tiny.draw(BATCH, frames, 3, 8, 8, seed=seed)


def levels(*shape):
    return 0.05 + 0.9 * torch.rand(*shape, generator=torch.Generator().manual_seed(9))


@pytest.fixture(params=CONDITIONS)
def cond(request):
    return CONDITIONS[request.param]


@pytest.fixture
def model(cond):
    return tiny.model(conditions=0 if cond is None else 3)


@pytest.fixture(scope="module")
def plain():
    """An unconditional network; no test may change it."""
    return tiny.model()


def remembered(model, frames, cond=None):
    """The context in which these frames have been seen."""
    context = model.start(len(frames), cond)
    for frame in range(frames.shape[1]):
        context = model.encode(frames[:, frame : frame + 1], context)
    return context


# One network, two ways to run it


def test_frame_by_frame_the_network_answers_as_in_one_parallel_pass(model, cond):
    clean, sigma = clip(), levels(BATCH, FRAMES)
    noisy = add_noise(clean, clip(seed=1), sigma)
    parallel = model.teacher_forced(clean, noisy, sigma, cond)
    context = model.start(BATCH, cond)
    for frame in range(FRAMES):
        span = slice(frame, frame + 1)
        assert_same(model.denoise(noisy[:, span], sigma[:, frame], context), parallel[:, span])
        context = model.encode(clean[:, span], context)


def test_every_condition_and_noise_level_counts(model, cond):
    x, sigma = clip(1), levels(BATCH)
    velocity = model.denoise(x, sigma, model.start(BATCH, cond))
    assert not torch.allclose(model.denoise(x, sigma / 2, model.start(BATCH, cond)), velocity)
    if cond is not None:
        assert not torch.allclose(model.denoise(x, sigma, model.start(BATCH, (cond + 1) % 3)), velocity)


def test_a_clean_frame_is_told_apart_from_one_at_noise_level_zero(plain):
    past, x = clip(1), clip(1, seed=1)
    seen = []
    with Trace(
        plain.hook_dict, "blocks.1.hook_resid_post", lambda at, name, value: seen.append(value.clone())
    ):
        plain.encode(x, remembered(plain, past))
        plain.denoise(x, torch.zeros(BATCH), remembered(plain, past))
    assert not torch.allclose(seen[-4], seen[-1])


def test_two_paths_of_training_attention_are_one():
    history = CleanThenNoisy(3, TOKENS)
    q, k, v = (tiny.draw(2, 2, 6 * TOKENS, 8, seed=seed) for seed in range(3))
    masked = F.scaled_dot_product_attention(q, k, v, attn_mask=history.mask(q.device))
    assert_same(history.attend(0, q, k, v), masked)


def test_the_mask_of_training_lets_nothing_through_from_the_future():
    mask = CleanThenNoisy(3, 1).mask(torch.device("cpu"))
    expected = [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [1, 0, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 1],
    ]
    assert torch.equal(mask, torch.tensor(expected, dtype=torch.bool))


def test_the_rotation_depends_only_on_how_far_apart_two_tokens_are():
    rope = AxialRope((4, 2, 2), 2, 2, 100.0)
    q, k = tiny.draw(1, 4, 1, 8), tiny.draw(1, 4, 1, 8, seed=1)

    def score(query_frame, key_frame):
        turned = rotate(q, rope(torch.tensor([query_frame]))), rotate(k, rope(torch.tensor([key_frame])))
        return torch.einsum("bqhd,bkhd->qk", *turned)

    assert_same(score(7, 5), score(2, 0))
    assert not torch.allclose(score(7, 5), score(7, 4))
    assert_same(rotate(q, rope(torch.tensor([3]))).norm(dim=-1), q.norm(dim=-1))


def test_passes_without_gradients_compute_what_passes_with_gradients_do():
    rope = AxialRope((4, 2, 2), 2, 2, 100.0)(torch.tensor([5]))
    values = torch.linspace(-9, 9, 999)
    for function, x in ((TanhGELU(), values), (lambda x: rotate(x, rope), tiny.draw(3, 4, 2, 8))):
        plain, traced = function(x.float()), function(x.float().requires_grad_())
        assert traced.requires_grad and not plain.requires_grad
        torch.testing.assert_close(plain, traced.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(TanhGELU()(values), F.gelu(values, approximate="tanh"), rtol=1e-5, atol=1e-6)


def test_the_rotation_turns_pairs_of_channels_as_complex_numbers():
    x = tiny.draw(1, 4, 2, 8)
    rope = AxialRope((4, 2, 2), 2, 2, 100.0)(torch.tensor([5]))
    place = torch.tensor([[5, r, c] for r in range(2) for c in range(2)])
    angle = torch.stack([place[:, 0], place[:, 0] / 10, place[:, 1], place[:, 2]], dim=1)[None, :, None]
    turned = torch.view_as_complex(x.unflatten(-1, (4, 2))) * torch.polar(torch.ones_like(angle), angle)
    assert_same(rotate(x, rope), torch.view_as_real(turned).flatten(-2))


# No look ahead


@pytest.mark.parametrize("frame", range(FRAMES))
def test_a_clean_frame_influences_only_later_frames_of_the_parallel_pass(model, cond, frame):
    clean, noisy = clip().requires_grad_(), clip(seed=1)
    velocity = model.teacher_forced(clean, noisy, levels(BATCH, FRAMES), cond)
    for other in range(FRAMES):
        (gradient,) = torch.autograd.grad(velocity[:, other].square().sum(), clean, retain_graph=True)
        assert gradient[:, frame].any() == (other > frame)


def test_changing_a_clean_frame_changes_nothing_before_it(plain):
    clean, noisy, sigma = clip(), clip(seed=1), levels(BATCH, FRAMES)
    changed = clean.clone()
    changed[:, 2] = clip(1, seed=5)[:, 0]
    before, after = (plain.teacher_forced(frames, noisy, sigma) for frames in (clean, changed))
    assert_same(after[:, :3], before[:, :3])
    assert not torch.allclose(after[:, 3], before[:, 3])


@pytest.mark.parametrize("frame", range(FRAMES))
def test_a_noisy_frame_influences_only_itself(model, cond, frame):
    noisy = clip(seed=1).requires_grad_()
    velocity = model.teacher_forced(clip(), noisy, levels(BATCH, FRAMES), cond)
    (gradient,) = torch.autograd.grad(velocity[:, frame].square().sum(), noisy)
    assert [bool(part.any()) for part in gradient.unbind(1)] == [other == frame for other in range(FRAMES)]


def test_changing_a_frame_or_an_action_changes_nothing_before_it_in_a_rollout():
    model, clean, noise, sigmas = tiny.model(conditions=3), clip(), clip(seed=1), sigma_grid(2)
    before = rollout(model, noise, sigmas, ACTIONS, clean, teacher_forced=True)
    changed, actions = clean.clone(), ACTIONS.clone()
    changed[:, 2], actions[:, 2] = 0, 0
    after = rollout(model, noise, sigmas, ACTIONS, changed, teacher_forced=True)
    assert torch.equal(after[:, :3], before[:, :3]) and not torch.allclose(after[:, 3], before[:, 3])
    after = rollout(model, noise, sigmas, actions, clean, teacher_forced=True)
    assert torch.equal(after[:, :2], before[:, :2]) and not torch.allclose(after[:, 2], before[:, 2])


def test_clips_of_a_batch_do_not_see_each_other(model, cond):
    x, sigma, past = clip(1, seed=1), levels(BATCH), clip(2)
    together = model.denoise(x, sigma, remembered(model, past, cond))
    alone = model.denoise(x[1:], sigma[1:], remembered(model, past[1:], None if cond is None else cond[1:]))
    assert_same(alone, together[1:])


# Contexts are values


def test_a_context_answers_the_same_after_newer_ones_exist(plain):
    x, sigma = clip(1, seed=1), levels(BATCH)
    first, second = clip(2).split(1, dim=1)
    old = plain.encode(first, plain.start(BATCH))
    fresh = plain.denoise(x, sigma, old)
    new = plain.encode(second, old)
    plain.denoise(x, sigma, new)
    assert (old.frame, new.frame) == (1, 2)
    assert_same(plain.denoise(x, sigma, old), fresh)
    assert_same(plain.denoise(x, sigma, new), plain.denoise(x, sigma, remembered(plain, clip(2))))


def test_one_context_can_be_continued_in_two_ways(plain):
    x, sigma, start = clip(1, seed=1), levels(BATCH), remembered(plain, clip(2))
    endings = clip(2, seed=3).split(1, dim=1)
    futures = [plain.encode(ending, start) for ending in endings]
    for ending, future in [*zip(endings, futures, strict=True)] * 2:
        fresh = remembered(plain, torch.cat([clip(2), ending], dim=1))
        assert_same(plain.denoise(x, sigma, future), plain.denoise(x, sigma, fresh))
    longer = [plain.encode(x, future) for future in reversed(futures)]
    assert not torch.allclose(*(plain.denoise(x, sigma, context) for context in longer))


def test_denoising_leaves_a_context_as_it_was(plain):
    context, sigma = remembered(plain, clip(2)), levels(BATCH)
    first, again = (plain.denoise(clip(1, seed=1), sigma, context) for _ in range(2))
    plain.denoise(clip(1, seed=2), sigma, context)
    assert torch.equal(first, again)
    assert torch.equal(plain.denoise(clip(1, seed=1), sigma, context), first)


# Bounded context, prepared steps, text


@pytest.mark.parametrize(("window", "sink"), [(1, 0), (2, 0), (1, 1)])
def test_a_window_is_the_same_in_parallel_and_frame_by_frame(window, sink):
    model, clean, sigma = tiny.model(window=window, sink=sink), clip(), levels(BATCH, FRAMES)
    noisy = add_noise(clean, clip(seed=1), sigma)
    parallel = model.teacher_forced(clean, noisy, sigma)
    for frame in range(FRAMES):
        span = slice(frame, frame + 1)
        alone = model.denoise(noisy[:, span], sigma[:, frame], remembered(model, clean[:, :frame]))
        assert_same(alone, parallel[:, span])
    unbounded = tiny.model().teacher_forced(clean, noisy, sigma)
    assert_same(parallel[:, :window], unbounded[:, :window])
    assert not torch.allclose(parallel[:, 3], unbounded[:, 3], atol=1e-4)


@pytest.mark.parametrize(("window", "sink"), [(1, 0), (2, 1), (1, 2)])
def test_two_paths_of_bounded_training_attention_are_one(window, sink):
    reach = Reach(window, sink)
    q, k, v = (tiny.draw(2, 2, 8 * TOKENS, 8, seed=seed) for seed in range(3))
    for history, n in ((CleanThenNoisy(4, TOKENS, reach), 8), (FrameCausal(4, TOKENS, reach), 4)):
        parts = [part[:, :, : n * TOKENS] for part in (q, k, v)]
        masked = F.scaled_dot_product_attention(*parts, attn_mask=history.mask(q.device))
        assert_same(history.attend(0, *parts), masked)


def test_keys_behind_a_window_know_their_age():
    model, ages = tiny.model(window=1, sink=1), {}
    with AttentionTap(model.attn_dict, "*", lambda at, name, p: ages.update({at.frame: p.key_age})) as tap:
        rollout(model, clip(), sigma_grid(1), on_pass=tap.on_pass)
    assert [ages[frame].tolist()[::TOKENS] for frame in range(FRAMES)] == [[0], [1, 0], [2, 1, 0], [3, 1, 0]]


def test_a_window_of_no_frame_is_refused():
    with pytest.raises(ValueError, match=" 1 .* 0"):
        tiny.config(window=0)
    with pytest.raises(ValueError, match=" 0 .* -1"):
        tiny.config(sink=-1)


def test_steps_prepared_together_are_those_taken_alone(model, cond):
    context, sigmas = remembered(model, clip(2), cond), sigma_grid(3)[:-1]
    for sigma, prepared in zip(sigmas, model.at_steps(sigmas, context), strict=True):
        x, level = clip(1, seed=1), sigma.expand(BATCH)
        assert_same(model.denoise(x, level, prepared), model.denoise(x, level, context))


def test_one_condition_for_a_whole_batch_is_read_once_and_counts_for_every_clip():
    model = tiny.model(conditions=3)
    shared, context = torch.tensor([[1, 2, 3, 0]]).expand(BATCH, -1), []
    for cond in (shared, shared.clone()):
        started = model.encode(clip(1, seed=2), model.start(BATCH, cond))
        context.append(next(iter(model.at_steps(torch.tensor([0.5]), started))))
    assert [len(each.modulations.final) for each in context] == [1, BATCH]
    x, level = clip(1, seed=1), torch.full((BATCH,), 0.5)
    assert_same(*(model.denoise(x, level, each) for each in context))


def test_a_prompt_is_read_by_every_block_in_both_ways_to_run():
    model, prompt = tiny.model(text_tokens=5, text_width=6), tiny.draw(BATCH, 5, 6)
    clean, noisy, sigma = clip(), clip(seed=1), levels(BATCH, FRAMES)
    parallel = model.teacher_forced(clean, noisy, sigma, prompt)
    alone = model.denoise(noisy[:, :1], sigma[:, 0], model.start(BATCH, prompt))
    assert_same(alone, parallel[:, :1])
    assert not torch.allclose(parallel, model.teacher_forced(clean, noisy, sigma, prompt.flip(0)))


# Cost


@pytest.mark.parametrize("parallel", [False, True])
def test_modulation_is_computed_once_a_frame_and_not_once_a_token(plain, parallel):
    rows = []
    linears = [
        module for name, module in plain.named_modules() if name.endswith(("norm1.linear", "norm2.linear"))
    ]
    handles = [
        linear.register_forward_hook(lambda module, inputs, output: rows.append(tuple(inputs[0].shape[:2])))
        for linear in linears
    ]
    try:
        if parallel:
            plain.teacher_forced(clip(), clip(seed=1), levels(BATCH, FRAMES))
        else:
            plain.denoise(clip(1), levels(BATCH), remembered(plain, clip(1)))
    finally:
        for handle in handles:
            handle.remove()
    assert rows == ([(BATCH, 2 * FRAMES)] * 4 if parallel else [(BATCH, 1)] * 8)


@pytest.mark.parametrize(("preset", "conditions", "millions"), [("far-b", 0, 130), ("far-m", 5, 230)])
def test_presets_have_the_sizes_of_the_paper(preset, conditions, millions):
    with torch.device("meta"):
        model = dense.build(dense.config(preset, conditions=conditions))
    parameters = sum(weight.numel() for weight in model.parameters())
    assert parameters == pytest.approx(millions * 1e6, rel=0.01)
    d, layers, conditions = model.config.d_model, 12, conditions and conditions + 1
    block = 2 * (3 * d * d + 3 * d) + 4 * (d * d + d) + 2 * 64 + 8 * d * d + 5 * d
    around = (32 * d + d) + (256 * d + d + d * d + d) + conditions * d + (2 * d * d + 2 * d) + (32 * d + 32)
    assert parameters == layers * block + around


# Untrained, misused


def test_a_new_network_predicts_no_velocity():
    model = dense.build(tiny.config())
    assert not model.denoise(clip(1), levels(BATCH), model.start(BATCH)).any()


def test_a_configuration_rebuilds_its_network():
    model = tiny.model(conditions=3)
    rebuilt = dense.build(model.describe())
    assert rebuilt.config == model.config
    rebuilt.load_state_dict(model.state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 10}, "10 x 8 .* 4"),
        ({"heads": 3}, "16 .* 3 "),
        ({"rope_axes": (4, 4, 4)}, r"\(4, 4, 4\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny.config(**changes)


def test_an_unknown_preset_is_answered_with_those_that_exist():
    with pytest.raises(ValueError, match="'huge'.*tiny, far-b, far-m"):
        dense.config("huge")


def test_a_conditional_network_asks_for_conditions_that_fit():
    model = tiny.model(conditions=3)
    with pytest.raises(ValueError, match="3 .*cond"):
        model.start(BATCH)
    with pytest.raises(ValueError, match="cond.* 2 .* 1"):
        model.start(1, ACTIONS)
    with pytest.raises(ValueError, match=" 2 .* 2 "):
        remembered(model, clip(3), ACTIONS[:, :2])
    with pytest.raises(ValueError, match="cond"):
        model.teacher_forced(clip(), clip(), levels(BATCH, FRAMES))


# TransformerLens


def test_transformer_lens_caches_every_standard_name(plain):
    context = remembered(plain, clip(2))
    velocity, cache = plain.run_with_cache(clip(1), levels(BATCH), context)
    attention = [f"attn.hook_{name}" for name in ("q", "k", "v", "rot_q", "rot_k", "pattern", "z")]
    block = [f"hook_{name}" for name in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")]
    names = {f"blocks.{layer}.{name}" for layer in range(2) for name in attention + block} | {"hook_embed"}
    assert set(cache) == names == set(plain.hook_dict)
    assert cache["blocks.0.hook_resid_mid"].shape == (BATCH, TOKENS, 16)
    assert cache["blocks.0.attn.hook_q"].shape == cache["blocks.1.attn.hook_z"].shape == (BATCH, TOKENS, 2, 8)
    assert cache["blocks.1.attn.hook_pattern"].shape == (BATCH, 2, TOKENS, 3 * TOKENS)
    assert torch.equal(velocity, plain.denoise(clip(1), levels(BATCH), context))


def test_what_is_cached_adds_up(plain):
    _, cache = plain.run_with_cache(clip(1), levels(BATCH), plain.start(BATCH))
    for layer in range(2):
        pre, mid, post, attn, mlp = (
            cache[f"blocks.{layer}.hook_{name}"]
            for name in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
        )
        assert torch.equal(mid, pre + attn) and torch.equal(post, mid + mlp)
    assert torch.equal(cache["blocks.0.hook_resid_pre"], cache["hook_embed"])
    assert torch.equal(cache["blocks.1.hook_resid_pre"], cache["blocks.0.hook_resid_post"])


def test_transformer_lens_filters_and_hooks_work(plain):
    x, sigma, context = clip(1), levels(BATCH), plain.start(BATCH)
    clean, cache = plain.run_with_cache(
        x, sigma, context, names_filter=lambda name: name.endswith("resid_post")
    )
    assert set(cache) == {"blocks.0.hook_resid_post", "blocks.1.hook_resid_post"}
    zeroed = plain.run_with_hooks(
        x, sigma, context, fwd_hooks=[("blocks.0.hook_mlp_out", lambda value, hook: value * 0)]
    )
    assert not torch.allclose(zeroed, clean)
    with plain.hooks(fwd_hooks=[("hook_embed", lambda value, hook: None)]):
        assert torch.equal(plain.denoise(x, sigma, context), clean)
    assert torch.equal(plain.denoise(x, sigma, context), clean)


@pytest.mark.parametrize("past", [0, 2])
def test_the_pattern_sums_to_one_and_is_only_what_one_makes_of_it(plain, past):
    x, sigma, context, rows = clip(1, seed=1), levels(BATCH), remembered(plain, clip(past)), []
    clean = plain.denoise(x, sigma, context)

    def look(pattern, hook):
        rows.append(pattern.sum(-1))

    def forget(pattern, hook):
        pattern[..., : past * TOKENS + 1] = 0

    name = "blocks.1.attn.hook_pattern"
    assert torch.equal(plain.run_with_hooks(x, sigma, context, fwd_hooks=[(name, look)]), clean)
    assert_same(rows[0], torch.ones(BATCH, 2, TOKENS))
    edited = plain.run_with_hooks(x, sigma, context, fwd_hooks=[(name, forget)])
    assert not torch.allclose(edited, clean)
    assert torch.equal(plain.denoise(x, sigma, context), clean)


def test_a_pattern_given_back_is_used(plain):
    x, sigma, context = clip(1, seed=1), levels(BATCH), remembered(plain, clip(1))
    z = {}

    def uniform(pattern, hook):
        return torch.full_like(pattern, 1 / pattern.shape[-1])

    def keep(value, hook):
        z[hook.name] = value

    first = "blocks.0.attn"
    hooks = [(f"{first}.hook_pattern", uniform), (f"{first}.hook_z", keep)]
    plain.run_with_hooks(x, sigma, context, fwd_hooks=hooks)
    gathered = z[f"{first}.hook_z"]
    assert_same(gathered, gathered[:, :1].expand_as(gathered))


def test_there_is_no_pattern_in_the_parallel_pass(plain):
    with plain.hooks(fwd_hooks=[("blocks.0.attn.hook_pattern", lambda value, hook: None)]):
        with pytest.raises(ValueError, match="teacher_forced"):
            plain.teacher_forced(clip(), clip(), levels(BATCH, FRAMES))


# The four checks of every adapter


def watched(model, *instruments, **settings):
    def on_pass(at):
        for instrument in instruments:
            instrument.on_pass(at)

    return rollout(model, clip(3, seed=1), sigma_grid(2), on_pass=on_pass, **settings)


def ignore(at, name, value):
    pass


def test_watching_changes_no_bit_and_each_point_fires_once_per_announced_pass(plain):
    clean, fired, announced = watched(plain), [], []
    trace = Trace(plain.hook_dict, "*", lambda at, name, value: fired.append((at, name)))
    tap = AttentionTap(plain.attn_dict, "*", lambda at, name, pattern: fired.append((at, name)))
    with trace, tap:
        assert torch.equal(
            rollout(
                plain,
                clip(3, seed=1),
                sigma_grid(2),
                on_pass=lambda at: (announced.append(at), trace.on_pass(at), tap.on_pass(at)),
            ),
            clean,
        )
    names = [*plain.hook_dict, *plain.attn_dict]
    assert len(announced) == 3 * 2 + 2 and len(fired) == len(set(fired)) == len(announced) * len(names)
    assert set(fired) == {(at, name) for at in announced for name in names}
    assert not any(module._forward_hooks for module in plain.modules())


def test_a_pattern_has_no_mass_beyond_its_frames_and_explains_the_output_of_attention(plain):
    values, patterns, checked = {}, {}, []

    def keep_value(at, name, value):
        values[at, name.removesuffix(".hook_v")] = value.clone().transpose(1, 2)

    def keep_pattern(at, name, pattern):
        past = [v for (earlier, where), v in values.items() if where == name and earlier.role == "encode"]
        own = [] if at.role == "encode" else [values[at, name]]
        patterns[at, name] = pattern.expect(torch.cat(past + own, dim=2))
        assert_same(pattern.rows(0, TOKENS).sum(-1), torch.ones(BATCH, 2, TOKENS))
        assert_same(pattern.lag_mass().sum(-1), torch.ones(BATCH, 2, TOKENS))
        assert pattern.key_age.tolist() == [age for age in range(at.frame, -1, -1) for _ in range(TOKENS)]

    def compare(at, name, value):
        assert_same(value.transpose(1, 2), patterns[at, name.removesuffix(".hook_z")])
        checked.append(name)

    first = Trace(plain.hook_dict, "*.hook_v", keep_value)
    tap = AttentionTap(plain.attn_dict, "*", keep_pattern)
    last = Trace(plain.hook_dict, "*.hook_z", compare)
    with first, tap, last:
        watched(plain, first, tap, last)
    assert len(checked) == 2 * (3 * 2 + 2)


@pytest.mark.parametrize("name", ["hook_embed", "blocks.0.hook_attn_out", "blocks.1.attn.hook_pattern"])
def test_an_edit_changes_the_output_while_it_is_attached(plain, name):
    clean = watched(plain)
    with Edit(plain.hook_dict, {name: lambda at, name, value: value / 2}) as edit:
        assert not torch.allclose(watched(plain, edit), clean)
    assert torch.equal(watched(plain), clean)


def test_an_edit_of_one_frame_and_step_leaves_the_frames_before_it(plain):
    def late(at, name, value):
        return value * 0 if (at.frame, at.step, at.role) == (1, 1, "denoise") else value

    clean = watched(plain)
    with Edit(plain.hook_dict, {"blocks.0.hook_mlp_out": late}) as edit:
        edited = watched(plain, edit)
    assert torch.equal(edited[:, 0], clean[:, 0])
    assert not torch.allclose(edited[:, 1], clean[:, 1]) and not torch.allclose(edited[:, 2], clean[:, 2])


def test_noise_levels_reach_the_network_unrounded_in_half_precision():
    model, levels = tiny.model().to(torch.bfloat16), []
    handle = model.time.register_forward_hook(
        lambda module, inputs, output: levels.extend(inputs[0][0].tolist())
    )
    rollout(model, clip(1).bfloat16(), sigma_grid(7))
    handle.remove()
    assert levels == pytest.approx((1000 * sigma_grid(7)[:-1]).tolist(), rel=1e-6)


def test_nothing_of_a_pass_stays_on_the_network(plain):
    before = {name: set(vars(module)) for name, module in plain.named_modules()}
    plain.denoise(clip(1), levels(BATCH), remembered(plain, clip(2)))
    assert {name: set(vars(module)) for name, module in plain.named_modules()} == before
    assert all(isinstance(module, nn.Module) for module in plain.hook_dict.values())
    assert ForwardPass(0, 0, 1.0, "denoise").branch == "cond"
