"""Captured denoising steps: the same results, the same contract, and no silent hooks."""

from dataclasses import fields, is_dataclass

import pytest
import tiny
import torch
from bounds import assert_same

from framelens.diffusion.guidance import guide
from framelens.diffusion.sampler import rollout
from framelens.diffusion.schedule import sigma_grid
from framelens.hooks.trace import Trace
from framelens.models import scd
from framelens.models.parts.fusion import FUSIONS
from framelens.models.variants import captured as _captured
from framelens.models.variants.captured import Captured, capture

SMALL = tiny.SHAPE | {"conditions": 5}
FRAMES, STEPS = 4, 3

pytestmark = pytest.mark.usefixtures("all_float64")


def separated(fusion, device="cpu"):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = scd.build(scd.Config(encoder_layers=1, decoder_layers=2, fusion=fusion, **SMALL))
        with torch.no_grad():
            for weight in model.parameters():
                weight += 0.2 * torch.randn(weight.shape)
    return model.eval().requires_grad_(False).to(device)


def video(model, scale=1.0, batch=2, device="cpu"):
    noise = tiny.draw(batch, FRAMES, 3, 8, 8).to(device)
    cond = torch.arange(batch * FRAMES).view(batch, FRAMES) % 5
    return rollout(guide(model, scale), noise, sigma_grid(STEPS), cond.to(device))


@pytest.fixture
def recorded(monkeypatch):
    """Graphs that a CPU can replay: the same call again, on whatever the buffers hold then."""
    count = []

    def record(run, pool):
        count.append(run)
        with torch.inference_mode(False):  # as the memory of a graph, it may be written in any mode
            result = torch.full(run().shape, torch.nan)
        return lambda: result.copy_(run()), result

    monkeypatch.setattr(_captured, "_record", record)
    return count


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_replayed_steps_make_the_same_video(fusion, scale, recorded):
    model = separated(fusion)
    fast = Captured(model, "graph")
    for _ in range(2):  # buffers that held another clip hold this one
        assert_same(video(fast, scale), video(model, scale))
    assert len(recorded) == _captured.BRANCHES, "a graph per branch serves all frames"


def test_another_batch_gets_graphs_of_its_own(recorded):
    model = separated("prefix")
    fast = Captured(model, "graph")
    for batch in (1, 2, 1):
        assert_same(video(fast, batch=batch), video(model, batch=batch))
    assert len(recorded) == 2 * _captured.BRANCHES


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_dense_model_is_recorded_for_every_frame(scale, recorded):
    model = tiny.model(conditions=5)
    fast = Captured(model, "graph")
    assert_same(video(fast, scale), video(model, scale))
    assert len(recorded) == FRAMES * (1 if scale == 1 else 2)


def test_buffers_filled_in_inference_mode_serve_outside_of_it(recorded):
    model = separated("prefix")
    fast = Captured(model, "graph")
    with torch.inference_mode():
        video(fast)
    assert_same(video(fast), video(model))


def test_steps_that_nobody_prepared_run_plainly(recorded):
    model = separated("token_concat")
    fast, x, sigma = Captured(model, "graph"), tiny.draw(1, 1, 3, 8, 8), torch.tensor([0.5])
    context = fast.start(1, torch.zeros(1, FRAMES, dtype=torch.long))
    assert_same(fast.denoise(x, sigma, context), model.denoise(x, sigma, context))
    assert not recorded


@pytest.mark.slow
@pytest.mark.parametrize("fusion", FUSIONS)
def test_what_is_compiled_never_sees_another_shape_or_number(fusion, monkeypatch):
    # A change would compile it again, and after some times run it uncompiled without a word.
    seen = []

    def compiled(function, **_):
        def called(model, x, context):
            seen.append(guarded((x, context)))
            return function(model, x, context)

        return called

    monkeypatch.setattr(torch, "compile", compiled)
    model = separated(fusion)
    assert_same(video(capture(model, "compile")), video(model))
    assert len(seen) == FRAMES * STEPS and all(each == seen[0] for each in seen)


def guarded(value):
    """All of a value that a compiled function is compiled for: structure, shapes, strides, numbers."""
    if isinstance(value, torch.Tensor):
        return (value.shape, value.stride(), value.dtype)
    if isinstance(value, list | tuple):
        return [guarded(item) for item in value]
    if is_dataclass(value):
        return {field.name: guarded(getattr(value, field.name)) for field in fields(value)}
    return value


def test_a_captured_model_refuses_hooks_and_says_why(recorded):
    fast = Captured(separated("prefix"), "graph")
    for points in (fast.hook_dict, fast.attn_dict):
        with pytest.raises(ValueError):
            Trace(points, ["*"], lambda *_: None)


@pytest.mark.parametrize(
    "mode, network, stated",
    [
        ("faster", "scd", "graph, compile"),
        ("graph", "scd", "cpu"),
        ("compile", "dense", "compile"),
    ],
)
def test_what_cannot_be_captured_is_refused(mode, network, stated):
    model = separated("prefix") if network == "scd" else tiny.model()
    with pytest.raises(ValueError, match=stated):
        capture(model, mode)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("mode", _captured.MODES)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_on_a_gpu_captured_steps_make_the_same_video(fusion, mode):
    model = separated(fusion, "cuda")
    for scale in (1.0, 2.0):
        fast, plain = video(capture(model, mode), scale, device="cuda"), video(model, scale, device="cuda")
        assert_same(fast, plain)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_a_dense_model_is_captured():
    model = tiny.model(conditions=5).to("cuda")
    fast, plain = video(capture(model, "graph"), device="cuda"), video(model, device="cuda")
    assert_same(fast, plain)
