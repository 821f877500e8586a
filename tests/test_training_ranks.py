"""Several processes, or several passes, train the same network as one process in one pass, to rounding."""

import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from framelens.models.loading.ranks import Ranks
from framelens.models.parts.fusion import FUSIONS
from framelens.training import loop
from framelens.training.build import build
from framelens.training.recipes import Recipe
from framelens.training.shares import NoiseOfRows, shares
from framelens.training.trainer import Training

ROOT = Path(__file__).parents[1]
SIZES = {"d_model": 16, "heads": 2, "rope_axes": [4, 2, 2]}
EXACT = 1e-6
RECIPE = Recipe(
    "dense", "tiles", architecture=SIZES | {"layers": 2}, steps=4, batch=4, frames=3, muon=False, warmup=1,
    autocast="float32", clean_history=0.5, clip=0.1, save_every=2, keep_every=1000, sample_every=1000,
)  # fmt: skip
SEPARATED = replace(
    RECIPE,
    network="scd",
    noise_draws=3,
    architecture=SIZES | {"encoder_layers": 2, "decoder_layers": 1, "fusion": "add"},
)
ASKING = replace(
    SEPARATED, architecture=SEPARATED.architecture | {"query": "noise", "start_token": False}
)  # fmt: skip


def open_gates(model):
    """Makes every weight count."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return model


def gradients(chosen, ranks=None):
    """The gradients of the first step, or of this rank's share of it."""
    training = Training(chosen, open_gates(build(chosen)), "cpu", ranks or Ranks())
    losses = [training.backpropagate(rows) for rows in training.shares]
    found = {name: weight.grad for name, weight in training.model.named_parameters()}
    return found, torch.stack(losses).mean()


def assert_close(first, second, relative=False):
    """Equal to EXACT, or to ten times that share of the largest number of each tensor."""
    assert first.keys() == second.keys()
    for name, one in first.items():
        two = second[name]
        assert (one is None) == (two is None), name
        if one is not None:
            bound = 10 * EXACT * two.abs().max() if relative else EXACT
            assert (one - two).abs().max() <= bound, name


@pytest.mark.parametrize("chosen", [RECIPE, SEPARATED, ASKING], ids=["dense", "separated", "asking"])
def test_a_step_in_several_passes_has_the_gradient_of_one(chosen):
    whole, loss = gradients(chosen)
    assert max(float(grad.abs().max()) for grad in whole.values() if grad is not None) > 1e-3
    for passes in (2, 4):
        parts, mean = gradients(replace(chosen, accumulate=passes))
        assert_close(parts, whole, relative=True)
        assert float(mean) == pytest.approx(float(loss), rel=EXACT)


@pytest.mark.parametrize("chosen", [RECIPE, ASKING], ids=["dense", "asking"])
def test_the_shares_of_ranks_have_the_gradient_of_the_whole_as_their_mean(chosen):
    whole, _ = gradients(chosen)
    parts = [gradients(replace(chosen, accumulate=2), Ranks(rank, 2))[0] for rank in range(2)]
    mean = {n: None if g is None else (g + parts[1][n]) / 2 for n, g in parts[0].items()}
    assert_close(mean, whole, relative=True)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_draws_one_after_the_other_have_the_gradient_of_all_together(fusion):
    asking = ASKING.architecture if fusion == "residual" else SEPARATED.architecture
    chosen = replace(SEPARATED, architecture=asking | {"fusion": fusion})
    whole, loss = gradients(chosen)
    assert float(whole["encoder.embed.weight"].abs().max()) > 1e-4
    for passes in (1, 2):
        apart, same = gradients(replace(chosen, draws_apart=True, accumulate=passes))
        assert_close(apart, whole, relative=True)
        assert float(same) == pytest.approx(float(loss), rel=EXACT)


def test_draws_apart_leave_a_frozen_encoder_alone():
    chosen = replace(SEPARATED, train_only="decoder")
    apart, _ = gradients(replace(chosen, draws_apart=True))
    assert_close(apart, gradients(chosen)[0], relative=True)
    assert apart["encoder.embed.weight"] is None


class Kept:
    """Counts the bytes that graphs hold at the same time."""

    def __init__(self):
        self.held = self.most = 0

    def pack(self, tensor):
        return Held(self, tensor)


class Held:
    def __init__(self, kept, tensor):
        self.kept, self.tensor = kept, tensor
        kept.held += tensor.nbytes
        kept.most = max(kept.most, kept.held)

    def __del__(self):
        self.kept.held -= self.tensor.nbytes


def test_draws_apart_need_the_memory_of_one():
    most = []
    for draws, apart in ((1, False), (6, True), (6, False)):
        chosen = replace(SEPARATED, noise_draws=draws, draws_apart=apart)
        kept = Kept()
        with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda held: held.tensor):
            gradients(chosen)
        most.append(kept.most)
    one, apart, together = most
    assert one <= apart < 1.1 * one and together > 2 * one


@pytest.mark.parametrize(
    ("changes", "said"),
    [({}, "not for a dense one"), ({"teacher": "dense-tiles"}, "a distillation has one draw")],
)
def test_draws_of_other_networks_are_not_taken_apart(changes, said):
    with pytest.raises(ValueError, match=said):
        gradients(replace(RECIPE, draws_apart=True, **changes))


def test_every_clip_is_in_one_share():
    rows = [
        rows for rank in range(3) for rows in shares(replace(RECIPE, batch=12, accumulate=2), Ranks(rank, 3))
    ]
    assert [clip for each in rows for clip in range(12)[each]] == list(range(12))
    with pytest.raises(ValueError, match=r"batch of 4 clips .* 3 processes .*accumulate=1: .*--batch that 3"):
        shares(RECIPE, Ranks(0, 3))


def test_one_process_is_not_divided(tmp_path):
    with pytest.raises(ValueError, match="--fsdp divides a training among processes: .*torchrun"):
        loop.train(RECIPE, tmp_path / "out", "cpu", progress=False, fsdp=True)
    assert not (tmp_path / "out").exists()


def test_noise_that_a_network_adds_is_that_of_its_clips():
    torch.manual_seed(0)
    whole = torch.randn_like(torch.zeros(4, 5)), torch.rand_like(torch.zeros(4, 2))
    torch.manual_seed(0)
    with NoiseOfRows(slice(1, 3), 4):
        part = torch.randn_like(torch.zeros(2, 5)), torch.rand_like(torch.zeros(2, 2))
    assert all(torch.equal(one[1:3], two) for one, two in zip(whole, part, strict=True))


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def launch(*words):
    """Two processes of a command, as torchrun starts them."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port"]
    return subprocess.run(
        [*command, str(free_port()), *words], cwd=ROOT, text=True, capture_output=True, timeout=300
    )


WORDS = (
    "--model dense-tiles --steps 4 --batch 4 --set frames=3 muon=false warmup=1 autocast=float32 clip=0.1 "
    "clean_history=0.5 save_every=2 keep_every=1000 sample_every=1000 "
    "d_model=16 heads=2 rope_axes=[4,2,2] layers=2"
).split()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of the same training by one process."""
    out = tmp_path_factory.mktemp("alone")
    loop.train(RECIPE, out, "cpu", progress=False)
    return out


STOPPED = """
import os, signal, sys
from framelens.training import trainer
from framelens.training.__main__ import main

advance = trainer.Training.advance

def stop(run):
    if run.step == 1 and run.ranks.rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    return advance(run)

trainer.Training.advance = stop
status = main()
os.write(2, f"ended with {status}; ".encode())  # in one piece, since two processes write
"""


@pytest.mark.slow
@pytest.mark.parametrize("divided", [(), ("--fsdp",)], ids=["whole", "sharded"])
def test_two_processes_train_the_weights_of_one_although_one_of_them_is_stopped(tmp_path, alone, divided):
    script, out = tmp_path / "stopped.py", tmp_path / "out"
    script.write_text(STOPPED)
    stopped = launch(str(script), "--out", str(out), *WORDS, *divided)
    assert stopped.stderr.count("ended with 130") == 2, stopped.stderr
    assert torch.load(out / "state.pt", weights_only=True)["step"] == 2, "both finish the step of the signal"
    done = launch("-m", "framelens.training", "--out", str(out), *WORDS, *divided)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(out / "model.safetensors"), "one process says where the weights are"
    assert_close(load_file(out / "model.safetensors"), load_file(alone / "model.safetensors"))
    first, second = (torch.load(each / "state.pt", weights_only=True) for each in (out, alone))
    assert_close(first["model"], second["model"])
    assert first["log"][-1]["loss"] == pytest.approx(second["log"][-1]["loss"], rel=EXACT)


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_is_refused_and_nothing_is_written(tmp_path):
    done = launch("-m", "framelens.training", "--out", str(tmp_path / "out"), *WORDS, "--batch", "3")
    assert done.returncode and "batch of 3 clips cannot be divided equally among 2 processes" in done.stderr
    assert not (tmp_path / "out").exists()
