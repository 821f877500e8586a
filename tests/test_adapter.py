"""A user's own model keeps the contract and is probed like any other; a file without one is refused."""

import copy
import json
import re
import sys
from pathlib import Path

import other_project
import pytest
import torch
from bounds import assert_same
from tiny import draw

from framelens import models
from framelens.diffusion.contract import CausalDiffuser
from framelens.diffusion.sampler import rollout
from framelens.diffusion.schedule import sigma_grid
from framelens.models.adapter_template import Adapter
from framelens.models.loading.shuffled import copy_shuffled
from framelens.probes.__main__ import main as probes_main
from framelens.probes.check.__main__ import main as check_main
from framelens.probes.check.examine import failures

ROOT = Path(__file__).parents[1]
OTHER = f"{ROOT}/tests/networks/other_adapter.py:load"
TEMPLATE = f"{ROOT}/models/adapter_template.py:load"
FRAMES = 4


@pytest.fixture(scope="module")
def adapted():
    """The other project's network as loaded; no test may change it."""
    return models.load(OTHER)


def test_the_other_projects_network_keeps_the_contract_through_the_door(adapted):
    assert isinstance(adapted, CausalDiffuser)
    assert not [check.line for check in failures(adapted)]
    assert adapted.source.metadata["network"] == models.label(OTHER) == "other_adapter"
    assert len(adapted.source.sha256) == 64


@pytest.mark.usefixtures("float64")
def test_cached_passes_predict_the_noise_that_the_masked_pass_does(adapted):
    adapted = copy.deepcopy(adapted).double()
    net, clip, noise = adapted.net, draw(2, FRAMES, 3, 16, 16), draw(2, 1, 3, 16, 16, seed=1)
    for frame in range(FRAMES):
        t = torch.full((2,), 400.0)
        share = other_project.alpha_bar(t)[:, None, None, None, None]
        noisy = share.sqrt() * clip[:, frame : frame + 1] + (1 - share).sqrt() * noise
        timesteps = torch.cat([torch.zeros(2, frame), t[:, None]], dim=1)
        whole = net(torch.cat([clip[:, :frame], noisy], dim=1), timesteps)[:, -1:]
        context = adapted.start(2)
        for past in range(frame):
            context = adapted.encode(clip[:, past : past + 1], context)
        assert_same(adapted.eps(noisy, t, context)[0], whole)


@pytest.mark.usefixtures("float64")
def test_velocities_are_those_of_flow_matching(adapted):
    """x - sigma v is the clean frame, x + (1 - sigma) v the noise, that their network predicts."""
    adapted = copy.deepcopy(adapted).double()
    sigma, x = torch.tensor([0.3, 0.8]), draw(2, 1, 3, 16, 16)
    level = sigma[:, None, None, None, None]
    context = adapted.start(2)
    velocity = adapted.denoise(x, sigma, context)
    share = (1 - level) ** 2 / ((1 - level) ** 2 + level**2)
    theirs = x / ((1 - level) ** 2 + level**2).sqrt()
    t = torch.tensor([brute_force_timestep(float(part)) for part in share.flatten()])
    eps = adapted.net(theirs, t[:, None])
    clean = (theirs - (1 - share).sqrt() * eps) / share.sqrt()
    assert_same(x + (1 - level) * velocity, eps)
    assert_same(x - level * velocity, clean)


def brute_force_timestep(share):
    """Where their schedule, which falls, leaves that share of signal; by halving."""
    low, high = torch.tensor(0.0), torch.tensor(999.0)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if other_project.alpha_bar(middle) > share else (low, middle)
    return float(low)


def test_the_shuffled_network_is_another_network(adapted):
    twin = copy_shuffled(adapted, 0)
    x, sigma = draw(1, 1, 3, 16, 16), torch.tensor([0.5])
    assert not torch.allclose(
        twin.denoise(x, sigma, twin.start(1)), adapted.denoise(x, sigma, adapted.start(1))
    )


@pytest.mark.usefixtures("float64")
def test_the_template_is_its_network():
    model = models.load(TEMPLATE, seed=3).double()
    clip, actions = draw(2, FRAMES, 3, 20, 20), torch.tensor([[0, 1, 2, 3], [4, 3, 2, 1]])
    whole = model.net(clip, torch.zeros(2, FRAMES), actions)
    context = model.start(2, actions)
    for frame in range(FRAMES):
        x = clip[:, frame : frame + 1]
        assert_same(model.denoise(x, torch.zeros(2), context), whole[:, frame : frame + 1])
        context = model.encode(x, context)


def test_the_adapter_of_the_template_is_short():
    source = (ROOT / "models/adapter_template.py").read_text()
    adapter = source[source.index("class Adapter") : source.index("def load")]
    assert len([line for line in adapter.splitlines() if line.strip()]) <= 50


def test_what_is_asked_reaches_the_function():
    one, other = (models.load(TEMPLATE, seed=seed) for seed in (0, 1))
    assert not torch.equal(one.net.embed.weight, other.net.embed.weight)
    half = models.load(TEMPLATE, dtype="bfloat16")
    video = rollout(
        half, draw(1, 2, 3, 20, 20).bfloat16(), sigma_grid(2), torch.zeros(1, 2, dtype=torch.long)
    )
    assert video.dtype == torch.bfloat16 and video.isfinite().all()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nothing_of_that_name\n", "nothing_of_that_name"),
        ("def load(:\n", r"mine\.py.* 1"),
        ("def make():\n    return 0\n", "'load'.*make"),
        (
            "def load():\n    return 0\n",
            "geometry, start, encode, denoise, hook_dict",
        ),
        ("def load(path):\n    return 0\n", "'path'"),
    ],
)
def test_an_adapter_that_gives_no_model_is_refused_in_one_line(tmp_path, source, message):
    file = tmp_path / "mine.py"
    file.write_text(source)
    with pytest.raises(ValueError) as error:
        models.load(f"{file}:load")
    assert re.search(message, str(error.value)) and "\n" not in str(error.value)
    assert str(tmp_path) not in sys.path


def test_an_adapter_finds_what_lies_beside_it_and_may_delay_its_annotations(tmp_path):
    (tmp_path / "beside_the_adapter.py").write_text("SEED = 5\n")
    (tmp_path / "mine.py").write_text(
        "from __future__ import annotations\n\nfrom dataclasses import dataclass\n\n"
        "from beside_the_adapter import SEED\n\nfrom framelens.models import adapter_template\n\n\n"
        "@dataclass\nclass Options:\n    seed: int = SEED\n\n\n"
        "def load():\n    return adapter_template.load(Options().seed)\n"
    )
    model = models.load(f"{tmp_path}/mine.py:load")
    assert isinstance(model, Adapter)
    assert torch.equal(model.net.embed.weight, models.load(TEMPLATE, seed=5).net.embed.weight)


@pytest.mark.slow
def test_an_adapters_model_is_probed_like_any_other(tmp_path, capsys):
    """On samples of its own: nothing says what videos it knows."""
    arguments = (
        "--quick --clips 1 --steps 2 --frames 5 --context 3 --probed 1 --workers 1 --run trial".split()
    )
    arguments += ["--experiments", "rollouts", "noise_invariance"]
    status = probes_main(["--model", OTHER, "--out", str(tmp_path), *arguments])
    assert status == 0, capsys.readouterr().err
    run = tmp_path / "other_adapter/trial"
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["complete"] and manifest["settings"]["videos"] == "own"
    assert (run / "noise_invariance.nc").exists()


@pytest.mark.slow
def test_it_is_checked_by_the_command(capsys):
    assert check_main(["--model", OTHER]) == 0
    assert re.search(rf"\b13\b.*\b13\b.*{re.escape(OTHER)}", capsys.readouterr().out.splitlines()[-1])
