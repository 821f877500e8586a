"""While frames are sampled nothing makes the CPU wait for a GPU: no value is read, no index is copied twice.

A CPU shows which values are read; a GPU also which copies wait.
"""

import pytest
import tiny
import tiny_scd
import torch

from framelens.diffusion.guidance import guide
from framelens.diffusion.sampler import rollout
from framelens.diffusion.schedule import sigma_grid
from framelens.hooks import pattern as pattern_file
from framelens.hooks.attention import AttentionTap
from framelens.models.variants.fetch_once import fetch_once

READS = ("item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__float__", "__int__", "__index__")
FRAMES, STEPS = 4, 3
MODELS = {
    "dense": lambda: tiny.model(conditions=3),
    "bounded": lambda: tiny.model(conditions=3, window=1, sink=1),
    "guided": lambda: guide(tiny.model(conditions=3), 2.0),
    "fetched once": lambda: fetch_once(tiny.model(conditions=3), refresh=2),
    **{way: lambda way=way: tiny_scd.model(way) for way in tiny_scd.WAYS},
    "guided by context": lambda: guide(tiny_scd.model("prefix"), 2.0, "context"),
}


def sample(make, begin, device="cpu", **options):
    """A rollout that calls `begin` before its first denoising step, when all inputs are read."""
    model = make()
    inner = getattr(model, "model", model)
    inner.to(device)
    noise, cond = (
        tiny.draw(1, FRAMES, 3, 8, 8).to(device),
        torch.zeros(1, FRAMES, dtype=torch.long).to(device),
    )
    steps = []

    def on_pass(at):
        if at.role == "denoise":
            steps.append(at)
            if len(steps) == 1:
                begin()

    rollout(model, noise, sigma_grid(STEPS), cond, on_pass=on_pass, **options)
    assert len(steps) >= FRAMES * STEPS


@pytest.mark.parametrize("options", [{}, {"renoise": 0}], ids=["euler", "renoise"])
@pytest.mark.parametrize("name", MODELS)
def test_sampling_reads_no_value_from_a_tensor(name, options, monkeypatch):
    def refuse():
        for read in READS:
            monkeypatch.setattr(torch.Tensor, read, lambda *_, read=read: pytest.fail(f"{read} is called"))

    sample(MODELS[name], refuse, **options)
    monkeypatch.undo()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("options", [{}, {"renoise": 0}], ids=["euler", "renoise"])
@pytest.mark.parametrize("name", MODELS)
def test_on_a_gpu_sampling_waits_for_nothing(name, options):
    try:
        sample(MODELS[name], lambda: torch.cuda.set_sync_debug_mode("error"), "cuda", **options)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_queries_that_are_read_are_drawn_once(monkeypatch):
    model, masses, draws = tiny.model(conditions=3), [], []
    drawn, permute = pattern_file._draw_queries, torch.randperm
    drawn.cache_clear()
    monkeypatch.setattr(torch, "randperm", lambda *some, **more: draws.append(1) or permute(*some, **more))

    def read(at, name, pattern):
        masses.append(pattern.subsample(2, seed=0).statistics()[0])

    with AttentionTap(model.attn_dict, "blocks.*.attn", read) as tap:
        cond = torch.zeros(1, FRAMES, dtype=torch.long)
        rollout(model, tiny.draw(1, FRAMES, 3, 8, 8), sigma_grid(STEPS), cond, on_pass=tap.on_pass)
    assert len(masses) > STEPS and len(draws) == 1
    assert not drawn(4, 2, 0, torch.device("cpu")).is_inference()
