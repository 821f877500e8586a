"""What does not fit is refused before it is read; a divided model gives the numbers of a whole one."""

import re

import pytest
import tiny
import tiny_wan
import torch
from bounds import assert_same, rounding

from framelens import models
from framelens.diffusion.sampler import rollout
from framelens.diffusion.schedule import sigma_grid
from framelens.diffusion.source import Source
from framelens.hooks.attention import AttentionTap
from framelens.hooks.trace import Trace
from framelens.models import scd
from framelens.models.loading import memory, multi_device
from framelens.models.loading.memory import bytes_as, free_bytes, values_in
from framelens.models.loading.multi_device import is_spread, spread
from framelens.models.loading.shuffled import copy_shuffled
from framelens.probes.__main__ import main
from framelens.probes.chunk import chunk_probe
from framelens.probes.experiments import cut, reuse_controls
from framelens.probes.run.probed_clip import Clip, ProbedClip
from framelens.probes.run.settings import Settings

FRAMES = 3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny.checkpoint(tmp_path_factory.mktemp("models") / "tiny.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_wan.folder(tmp_path_factory.mktemp("wan") / "network", tiny_wan.stock(num_layers=3))


# What is needed, and what is free


def test_the_size_is_read_off_headers_alone(checkpoint, folder, tmp_path):
    numbers = sum(weight.numel() for weight in models.load(str(checkpoint)).state_dict().values())
    assert values_in(checkpoint) == numbers
    assert bytes_as([checkpoint], torch.bfloat16) == 2 * numbers
    weights = tiny_wan.original(tiny_wan.stock())
    both = tiny_wan.released(
        tmp_path / "both.pt", weights, generator={n: t.half() for n, t in weights.items()}
    )
    assert values_in(both) == sum(t.numel() for t in weights.values()), "one of the two networks counts"
    torch.save(weights, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert values_in(tmp_path / "old.pt") == pytest.approx(values_in(both), rel=0.5)


def test_a_container_has_no_more_than_its_limit(tmp_path, monkeypatch):
    def told(limit, used):
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text(f"{used}\n")
        return free_bytes("cpu")

    monkeypatch.setattr(memory, "CGROUPS", ((tmp_path / "memory.max", tmp_path / "memory.current"),))
    machine = free_bytes("cpu")
    assert told("max", 5) == pytest.approx(machine, rel=0.1)
    assert told(10_000, 4_000) == 6_000
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 1000\n")
    assert told(10_000, 4_000) == 7_000


def test_too_little_memory_is_one_line_before_anything_is_read(
    checkpoint, folder, tmp_path, monkeypatch, capsys
):
    for name in ("read_file", "read_folder"):
        monkeypatch.setattr(f"framelens.models.loading.read.{name}", lambda path: pytest.fail("it was read"))
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
    for path, said in ((checkpoint, {}), (folder, tiny_wan.SAID)):
        with pytest.raises(ValueError, match=r"bfloat16.*\b0\.0 GB\b.*cpu"):
            models.load(str(path), dtype="bfloat16", **said)
    command = ["--model", str(checkpoint), "--out", str(tmp_path), "--run", "a", "--workers", "1"]
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("framelens probe: ") and re.search(r"\b2 ", line)
    assert "--dtype bfloat16" in line and not list(tmp_path.iterdir())


def test_both_networks_of_a_probe_count(checkpoint, monkeypatch):
    one = bytes_as([checkpoint], torch.float32)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1.5 * one)
    assert models.load(str(checkpoint)).source.file == checkpoint
    with pytest.raises(ValueError, match=r"\b2 "):
        models.load(str(checkpoint), copies=2)


def test_a_gpu_that_is_too_small_names_the_remedies(checkpoint, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (1000, 2000))
    with pytest.raises(ValueError, match="cuda:1.*--dtype bfloat16.*--device auto"):
        models.load(str(checkpoint), device="cuda:1")
    monkeypatch.setattr(memory, "MEMINFO", checkpoint.with_name("none"))
    monkeypatch.setattr(memory, "CGROUPS", ())
    assert free_bytes("auto") == 2000
    with pytest.raises(ValueError, match="--dtype bfloat16"):
        models.load(str(checkpoint), device="auto")


# Over several devices


def test_auto_is_the_processor_where_there_is_no_gpu(folder):
    model = models.load(str(folder), device="auto", **tiny_wan.SAID)
    assert not is_spread(model) and model.device.type == "cpu"


@pytest.fixture
def divided(folder, tmp_path):
    """The same network with a layer on disk, and all of what it has at its root there too."""
    model = models.load(str(folder), **tiny_wan.SAID).double()
    places = {name: "cpu" for name, _ in model.named_children()} | {"scale_shift_table": "disk"}
    del places["blocks"]
    places |= {"blocks.0": "cpu", "blocks.1": "disk", "blocks.2": "cpu"}
    return spread(model, places, str(tmp_path))


@pytest.mark.usefixtures("float64")
def test_a_model_that_lies_in_several_places_gives_the_same_numbers(folder, divided):
    whole = models.load(str(folder), **tiny_wan.SAID).double()
    assert is_spread(divided) and not is_spread(whole)
    assert any(weight.is_meta for weight in divided.parameters()), "nothing is on disk"
    seen = {}
    for name, model in (("whole", whole), ("divided", divided)):
        kept = seen.setdefault(name, [])
        trace = Trace(
            model.hook_dict, "*blocks.*.hook_resid_post", lambda at, _, x, k=kept: k.append(x.clone())
        )
        tap = AttentionTap(model.attn_dict, "*", lambda at, _, p, k=kept: k.append(p.lag_mass()))
        with trace, tap:
            kept.append(
                rollout(
                    model, tiny_wan.clip(3), sigma_grid(2), tiny_wan.prompt(),
                    on_pass=lambda at, both=(trace, tap): [each.on_pass(at) for each in both],
                )
            )  # fmt: skip
    assert len(seen["whole"]) == len(seen["divided"]) > 20
    for a, b in zip(*seen.values(), strict=True):
        assert_same(a, b)


def test_the_random_twin_of_a_divided_model_is_read_anew(folder):
    model = models.load(str(folder), **tiny_wan.SAID)
    twin = models.load_shuffled(str(folder), 3, **tiny_wan.SAID)
    for (name, a), b in zip(copy_shuffled(model, 3).named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_a_model_that_cannot_be_divided_says_so():
    with pytest.raises(ValueError, match="Dense"):
        spread(tiny.model(), {"": "disk"}, "nowhere")


def test_what_no_device_holds_is_refused(monkeypatch):
    monkeypatch.setattr("accelerate.utils.get_max_memory", lambda: {0: 100, "cpu": 100})
    with pytest.raises(ValueError, match=r"0\.0 GB.*\b60%"):
        multi_device._fit(tiny.model())


# A past in memory once


def probed_clip_of(model):
    clips = [Clip(tiny.draw(1, FRAMES, 3, 8, 8, seed=seed).clamp(-1, 1), None) for seed in (1, 2)]
    small = {"clips": 1, "context": 1, "steps": 2, "frames": FRAMES, "quick": True, "layers": (1, 1)}
    return ProbedClip(
        0, {"trained": model, "random": copy_shuffled(model, 0)}, *clips, Settings(**small), FRAMES
    )


@pytest.fixture(params=["dense", "token_concat", "prefix"])
def network(request, float64):
    if request.param == "dense":
        model = tiny.model(layers=3)
    else:
        torch.manual_seed(0)
        model = scd.build(
            scd.config(
                "tiny", height=8, width=8, encoder_layers=2, decoder_layers=2, heads=2, d_model=16,
                conditions=0, fusion=request.param, rope_axes=(4, 2, 2),
            )
        )  # fmt: skip
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.3)
    model.source = Source()
    return model.eval().requires_grad_(False)


@pytest.mark.slow
def test_rows_of_a_large_model_share_one_past_and_get_the_same_numbers(network, monkeypatch):
    measured = {}
    most = chunk_probe.TOKENS
    for tokens in (most, 1):
        monkeypatch.setattr(chunk_probe, "TOKENS", tokens)
        about = probed_clip_of(network)
        measured[tokens] = {}
        for experiment in (cut, reuse_controls):
            measured[tokens] |= experiment.measure(about)
        probe = about.chunk_probe()
        caches = [context.cache.storage.keys[0] for context in probe.pasts.contexts.values()]
        memories = {keys.untyped_storage().data_ptr() for keys in caches}
        assert probe.batch == (1 if tokens == 1 else chunk_probe.ROWS // chunk_probe.DRAWS)
        assert len(memories) == (1 if tokens == 1 else len(caches)), "the past is in memory more than once"
        assert all(past == "own" for _, past in probe.pasts.contexts), "the other clip's past is kept"
    for name, expected in measured[most].items():
        for variable, values in expected.data_vars.items():
            bound = rounding(torch.float32, 1, 1, values.values)  # kept in float32
            assert_same(measured[1][name][variable].values, values.values, bound=bound)
