"""A Pattern equals the explicit softmax it never makes, and a tap never changes what it watches."""

import math
from types import SimpleNamespace

import pytest
import torch
from bounds import assert_same, rounding
from torch import nn
from torch.nn import functional as F

from framelens.hooks import AttentionPoint, AttentionTap, Pattern, SilentHookError
from framelens.hooks import kernel as kernel_file
from framelens.hooks import pattern as pattern_file
from framelens.hooks.attention import self_test

AGES = {
    "one frame": [0] * 5,
    "oldest first": [2] * 4 + [1] * 4 + [0] * 4,
    "shuffled": [0, 2, 1, 0, 1, 2, 2, 1, 0],
    "unequal frames": [3] * 2 + [1] * 5 + [0] * 3,
    "text and frames": [-1] * 3 + [1] * 3 + [0] * 3 + [-1],
    "newest first, one lag missing": [0] * 3 + [2] * 3,
}
PATHS = {
    "explicit": {},
    "batched": {"EXPLICIT_SCORES": 0},
    "frame by frame": {"EXPLICIT_SCORES": 0, "BATCHED_OUTPUTS": 0},
}


@pytest.fixture(params=PATHS)
def path(request, monkeypatch):
    for name, value in PATHS[request.param].items():
        monkeypatch.setattr(pattern_file, name, value)


def draw(keys, queries=6, width=8, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(2, 3, queries, width, generator=generator)
    k = torch.randn(2, 3, keys, width, generator=generator)
    return (3 * q).to(dtype), k.to(dtype)


def pattern_of(ages, **settings):
    q, k = draw(len(ages), **settings)
    return Pattern(q, k, 0.4, torch.tensor(ages))


def probabilities(pattern):
    return (pattern.scale * pattern.q.double() @ pattern.k.double().mT).softmax(-1)


def explicit_mass(pattern):
    member = F.one_hot(pattern.key_age + 1).double()
    return (probabilities(pattern) @ member)[..., 1:]


def explicit_entropy(pattern):
    p = probabilities(pattern)
    return -torch.xlogy(p, p).sum(-1)


@pytest.mark.parametrize("ages", AGES.values(), ids=AGES)
def test_mass_entropy_and_mean_lag_equal_those_of_the_explicit_map(ages):
    pattern = pattern_of(ages)
    mass = explicit_mass(pattern)
    assert_same(pattern.lag_mass(), mass, rtol=1e-11)
    assert_same(pattern.entropy(), explicit_entropy(pattern), rtol=1e-11)
    lags = torch.arange(mass.shape[-1]).double()
    assert_same(pattern.mean_lag(), mass @ lags, rtol=1e-11)


@pytest.mark.parametrize("ages", AGES.values(), ids=AGES)
def test_statistics_equal_the_separate_methods_on_every_path(ages, path):
    pattern = pattern_of(ages)
    mass, entropy = pattern.statistics()
    assert_same(mass, pattern.lag_mass(), rtol=1e-11)
    assert_same(entropy, pattern.entropy(), rtol=1e-11)


@pytest.mark.parametrize("values", [1, 5, 8, 21])
def test_expectations_equal_those_of_the_explicit_map(values):
    pattern = pattern_of([0] * 10)
    shared = torch.randn(10, values, dtype=torch.float64)
    per_head = torch.randn(2, 3, 10, values, dtype=torch.float64)
    for v in (shared, per_head):
        assert_same(pattern.expect(v), probabilities(pattern) @ v, rtol=1e-11)


def test_the_expectation_of_the_values_is_the_output_of_the_layer():
    q, k = draw(10)
    v = torch.randn_like(k)
    assert_same(Pattern(q, k).expect(v), F.scaled_dot_product_attention(q, k, v))


def test_whole_numbers_can_be_averaged():
    pattern = pattern_of(AGES["shuffled"])
    ages = pattern.expect(pattern.key_age[:, None]).squeeze(-1)
    assert_same(ages, pattern.mean_lag())


def test_rows_sum_to_one_and_so_do_the_lags_of_keys_in_frames(path):
    pattern = pattern_of(AGES["unequal frames"], dtype=torch.float32)
    one = torch.ones(2, 3, 6)
    bound = rounding(torch.float32, pattern.keys, 1)
    assert_same(pattern.rows(0, 6).sum(-1), one, bound=bound)
    assert_same(pattern.statistics()[0].sum(-1), one, bound=bound)
    assert_same(pattern.rows(2, 5), pattern.rows(0, 6)[:, :, 2:5], bound=bound)


def test_mass_on_keys_of_no_frame_is_what_the_lags_leave(path):
    pattern = pattern_of(AGES["text and frames"])
    text = pattern.expect((pattern.key_age == -1).double()[:, None]).squeeze(-1)
    assert_same(1 - pattern.statistics()[0].sum(-1), text)


@pytest.mark.parametrize("ages", AGES.values(), ids=AGES)
def test_uniform_attention_gives_each_lag_its_share_of_the_keys(ages, path):
    q, k = draw(len(ages))
    pattern = Pattern(torch.zeros_like(q), k, None, torch.tensor(ages))
    mass, entropy = pattern.statistics()
    for lag in range(mass.shape[-1]):
        share = torch.full((2, 3, 6), ages.count(lag) / len(ages), dtype=torch.float64)
        assert_same(mass[..., lag], share)
    assert_same(entropy, torch.full_like(entropy, len(ages)).log())


def test_the_order_of_the_keys_does_not_matter(path):
    pattern = pattern_of(AGES["unequal frames"])
    order = torch.randperm(pattern.keys)
    shuffled = Pattern(pattern.q, pattern.k[:, :, order], pattern.scale, pattern.key_age[order])
    for got, expected in zip(shuffled.statistics(), pattern.statistics(), strict=True):
        assert_same(got, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_costs_no_accuracy_in_mass_and_entropy(dtype, path):
    pattern = pattern_of([3] * 40 + [2] * 40 + [1] * 40 + [0] * 40, queries=40, width=32, dtype=dtype)
    mass, entropy = explicit_mass(pattern), explicit_entropy(pattern)
    bound = rounding(torch.float32, 160, 1)  # sums of 160 keys
    for got in (pattern.lag_mass(), pattern.statistics()[0]):
        assert_same(got, mass, bound=bound)
    for got in (pattern.entropy(), pattern.statistics()[1]):
        assert_same(got, entropy, bound=bound * math.log(160))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_same(pattern.statistics()[0], mass, bound=bound)


def test_attention_without_a_fused_kernel_is_the_same(monkeypatch):
    q, k = draw(10)
    v = torch.randn_like(k)
    fused = kernel_file.attend(q, k, v, 0.4)
    monkeypatch.setattr(kernel_file, "BLOCK_SCORES", 130)
    for got, expected in zip(kernel_file._attend_in_blocks(q, k, v, 0.4), fused, strict=True):
        assert_same(got, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_the_kernels_of_this_machine_pass_the_self_test(dtype):
    self_test("cpu", dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_the_kernels_of_the_gpu_pass_the_self_test(dtype):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    self_test("cuda", dtype)


def test_the_self_test_refuses_a_kernel_whose_normaliser_is_off(monkeypatch):
    def base_two(q, k, v, scale):
        out, log_sum = kernel_file.attend(q, k, v, scale)
        return out, log_sum / torch.log(torch.tensor(2.0))

    monkeypatch.setattr(pattern_file, "attend", base_two)
    with pytest.raises(RuntimeError, match="log_normaliser.*cpu"):
        self_test("cpu")


def test_a_subsample_holds_chosen_queries_unchanged():
    pattern = pattern_of(AGES["oldest first"], queries=20)
    few = pattern.subsample(5, seed=1)
    assert (few.queries, few.keys, few.fraction) == (5, 12, 0.25)
    entropy = pattern.entropy()
    chosen = [entropy[0, 0].sub(value).abs().argmin().item() for value in few.entropy()[0, 0]]
    assert chosen == sorted(set(chosen))
    assert_same(few.statistics()[0], pattern.statistics()[0][:, :, chosen])


def test_the_same_seed_chooses_the_same_queries_and_all_queries_are_equally_likely():
    q = torch.arange(10.0)[None, None, :, None]
    pattern = Pattern(q, q)
    assert torch.equal(pattern.subsample(4, seed=3).q, pattern.subsample(4, seed=3).q)
    drawn = torch.cat([pattern.subsample(4, seed).q.flatten() for seed in range(400)])
    assert torch.bincount(drawn.long(), minlength=10).float().sub(160).abs().max() < 50


def test_a_subsample_of_all_queries_is_the_pattern_itself():
    pattern = pattern_of(AGES["one frame"])
    assert pattern.subsample(None, seed=0) is pattern
    assert pattern.subsample(6, seed=0) is pattern
    with pytest.raises(ValueError, match=r"\b1\b"):
        pattern.subsample(0, seed=0)


def test_a_pattern_says_what_it_lacks():
    q, k = draw(10)
    with pytest.raises(ValueError, match="no key_age"):
        Pattern(q, k).lag_mass()
    with pytest.raises(ValueError, match="9 .*10"):
        Pattern(q, k, None, torch.zeros(9, dtype=torch.long))


class Attention(nn.Module):
    """Two heads over a frame of 3 tokens and one more frame of the past; `settings` go to the kernel."""

    def __init__(self, settings=None):
        super().__init__()
        self.project = nn.Linear(4, 12)
        self.settings = settings or {}

    def forward(self, x):
        q, k, v = self.project(x).unflatten(-1, (3, 2, 2)).permute(2, 0, 3, 1, 4)
        z = F.scaled_dot_product_attention(q[:, :, 3:], k, v, scale=0.3, **self.settings)
        return z.transpose(1, 2).flatten(-2)


class Network(nn.Module):
    def __init__(self, attention=Attention, layers=2):
        super().__init__()
        self.blocks = nn.ModuleList(attention() for _ in range(layers))

    def forward(self, x):
        for block in self.blocks:
            x = torch.cat([x[:, :3], x[:, 3:] + block(x)], dim=1)
        return x

    @property
    def attn_dict(self):
        points = [AttentionPoint(block, self.key_age) for block in self.blocks]
        return {f"blocks.{layer}.attn": point for layer, point in enumerate(points)}

    @staticmethod
    def key_age(frame, keys):
        return torch.tensor([frame] * 3 + [0] * 3)


def moment(frame=1, role="denoise"):
    return SimpleNamespace(frame=frame, role=role)


def passes_through(model, x, *taps):
    for frame in (1, 4):
        for tap in taps:
            tap.on_pass(moment(frame))
        out = model(x)
    return out


@pytest.fixture
def x():
    return torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def no_listener_stays():
    yield
    assert torch._C._len_torch_function_stack() == 0


def hooks_on(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_a_tap_sees_every_call_with_its_moment_and_changes_nothing(x):
    model = Network()
    clean, seen = model(x), []
    with AttentionTap(model.attn_dict, "*", lambda *call: seen.append(call)) as tap:
        assert torch.equal(passes_through(model, x, tap), clean)
    assert [(at.frame, name) for at, name, _ in seen] == [
        (frame, f"blocks.{layer}.attn") for frame in (1, 4) for layer in (0, 1)
    ]
    q, k, _ = model.blocks[0].project(x).unflatten(-1, (3, 2, 2)).permute(2, 0, 3, 1, 4)
    _, _, pattern = seen[0]
    assert torch.equal(pattern.q, q[:, :, 3:]) and torch.equal(pattern.k, k) and pattern.scale == 0.3
    assert seen[2][2].key_age.tolist() == [4, 4, 4, 0, 0, 0]
    assert not pattern.q.requires_grad
    assert hooks_on(model) == 0


def test_taps_compose_on_the_same_modules(x):
    model, first, second = Network(), [], []
    clean = model(x)
    with AttentionTap(model.attn_dict, "*", lambda at, name, pattern: first.append(name)) as outer:
        with AttentionTap(model.attn_dict, "*.1.*", lambda at, name, pattern: second.append(name)) as inner:
            assert torch.equal(passes_through(model, x, outer, inner), clean)
    assert (len(first), len(second)) == (4, 2)


def test_a_call_outside_the_watched_modules_is_not_heard(x):
    model, seen = Network(), []
    with AttentionTap(model.attn_dict, "blocks.1.attn", lambda at, name, pattern: seen.append(name)):
        model(x)
        F.scaled_dot_product_attention(*torch.randn(3, 1, 1, 2, 4))
    assert seen == ["blocks.1.attn"]


def test_without_announced_passes_the_keys_have_no_age(x):
    model, seen = Network(), []
    with AttentionTap(model.attn_dict, "blocks.0.attn", lambda *call: seen.append(call)):
        model(x)
    assert seen[0][0] is None and seen[0][2].key_age is None


@pytest.mark.parametrize(
    "settings, word",
    [
        ({"attn_mask": torch.zeros(3, 6)}, "attn_mask"),
        ({"dropout_p": 0.5}, "dropout_p"),
        ({"is_causal": True}, "is_causal"),
    ],
)
def test_a_call_that_a_pattern_cannot_describe_is_refused_and_leaves_nothing(x, settings, word):
    model = Network(lambda: Attention(settings))
    with pytest.raises(ValueError, match=f"blocks.0.attn.*{word}"):
        with AttentionTap(model.attn_dict, "*", lambda *call: None):
            model(x)
    assert hooks_on(model) == 0


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_stays_after_an_error_in_the_sink_or_in_the_forward(x, error):
    def fail(*_):
        raise error("stop")

    for model, sink in ((Network(), fail), (Network(), lambda *call: None)):
        if sink is not fail:
            model.blocks[1].project.forward = fail
        with pytest.raises(error, match="stop"):
            with AttentionTap(model.attn_dict, "*", sink):
                model(x)
        assert hooks_on(model) == 0
        assert torch._C._len_torch_function_stack() == 0


def test_a_module_that_attends_in_another_way_is_not_taken_for_silence(x):
    class Other(Attention):
        def forward(self, x):
            return self.project(x)[:, 3:, :4]

    model = Network(Other)
    with pytest.raises(SilentHookError, match="blocks.0.attn'.* 1 .* 2"):
        with AttentionTap(model.attn_dict, "*", lambda *call: None) as tap:
            passes_through(model, x, tap)


@pytest.mark.slow
@pytest.mark.parametrize("compile", ["model", "block", "function"])
@torch.no_grad()
def test_a_compiled_model_is_refused_or_found_out(x, compile):
    torch.compiler.reset()
    model = run = Network()
    if compile == "block":
        for block in model.blocks:
            block.compile(backend="eager")
    else:
        run = torch.compile(model if compile == "model" else lambda x: model(x) * 1, backend="eager")
    clean, seen = run(x), []
    with pytest.raises(SilentHookError):
        with AttentionTap(model.attn_dict, "*", lambda at, name, pattern: seen.append(name)) as tap:
            passes_through(run, x, tap)
    assert seen == [] and hooks_on(model) == 0
    assert torch.equal(run(x), clean)


@torch.no_grad()
def test_compiled_parts_inside_a_watched_module_do_no_harm(x):
    torch.compiler.reset()
    model, seen = Network(), []
    for block in model.blocks:
        block.project.compile(backend="eager")
    clean = model(x)
    with AttentionTap(model.attn_dict, "*", lambda at, name, pattern: seen.append(name)) as tap:
        assert torch.equal(passes_through(model, x, tap), clean)
    assert len(seen) == 4
