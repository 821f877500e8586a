"""What each section measures: the sizes of a GPU, and the toy sizes of a rehearsal on a CPU.

sizes = full_sizes("cuda", ["minecraft", "wan-1.3b"])       # or toy_sizes([...])
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from framelens.benchmarks.overhead.card import Rollout
from framelens.benchmarks.scd.arms import PLAIN
from framelens.benchmarks.scd.memory import check_memory
from framelens.benchmarks.scd.presets import FETCH_ONCE, PRESETS, TINY, Preset
from framelens.benchmarks.scd.sweeps import BenchSettings
from framelens.models import dense, scd
from framelens.models.loading.devices import check_device
from framelens.probes.run.settings import Settings

FUSIONS = ("token_concat", "prefix", FETCH_ONCE)
"""What is timed beside dense: the paper's fusion, the default one, and the past fetched once."""
NO_SWEEPS = {"histories": (), "all_steps": (), "decoder_layers": (), "batches": ()}
PROBED = ("rollouts", "cut")
"""Experiments whose peak memory is compared with the estimate."""


@dataclass(frozen=True)
class DaySizes:
    """Networks, clips, device and dtype of every section."""

    device: str
    dtype: str
    presets: dict[str, Preset]
    """By the name of the preset that each stands for."""
    overhead: Rollout
    probed: dense.Config
    probing: Settings
    trained: scd.Config
    trained_frames: int
    matrix: int
    """Rows and columns of the matrices that are multiplied to measure the device's rate."""
    repeats: int
    is_rehearsal: bool = False

    def bench(self, preset: str, modes: Sequence[str], fusions: Sequence[str] = FUSIONS) -> BenchSettings:
        """What is timed of that preset."""
        modes = [mode for mode in modes if mode == PLAIN or not self.is_rehearsal]
        return BenchSettings(self.presets[preset], fusions, modes, self.device, self.dtype, self.repeats)


def choose_sizes(device: str, presets: Sequence[str], is_rehearsal: bool) -> DaySizes:
    """The sizes of that GPU, or of a rehearsal; ValueError without a GPU, or if a preset does not fit it."""
    if is_rehearsal:
        return toy_sizes(presets)
    if not device.startswith("cuda"):
        raise ValueError(f"--device {device}: this times a GPU, cuda or cuda:N; --rehearse runs on the CPU")
    if not torch.cuda.is_available():
        raise ValueError(
            "this machine has no CUDA GPU; --rehearse runs every section on the CPU at toy sizes"
        )
    check_device(device, "bfloat16")
    sizes = full_sizes(device, presets)
    for preset in presets:
        settings = sizes.bench(preset, (PLAIN,))
        check_memory(settings.preset, settings.networks, sizes.dtype, device)
    return sizes


def full_sizes(device: str, presets: Sequence[str]) -> DaySizes:
    """The sizes of a GPU: those of the paper's networks."""
    wan = dense.config("wan-1.3b")
    plain = replace(wan, text_tokens=0, text_width=0)
    tokens = plain.geometry(wan.layers).tokens_per_frame
    return DaySizes(
        device=device,
        dtype="bfloat16",
        presets={name: replace(PRESETS[name], **NO_SWEEPS) for name in presets},
        overhead=Rollout(tokens, 5, 8, device, 0, wan.layers, "bfloat16", plain),
        probed=wan,
        probing=_probing(frames=6, steps=8, layers=(14, 15), device=device, dtype="bfloat16"),
        trained=scd.config("wan-1.3b"),
        trained_frames=5,
        matrix=8192,
        repeats=6,
    )


def toy_sizes(presets: Sequence[str]) -> DaySizes:
    """The sizes of a rehearsal: every section runs, and no number says anything of a GPU."""
    small = {"height": 8, "width": 8, "conditions": 5}
    toy = replace(
        TINY, **NO_SWEEPS, frames=4, steps=2, history=2,
        dense=dense.config("tiny", layers=3, **small),
        scd=scd.config("tiny", encoder_layers=2, decoder_layers=1, **small),
    )  # fmt: skip
    return DaySizes(
        device="cpu",
        dtype="float32",
        presets={name: replace(toy, name=name, what=f"a toy that stands for {name}") for name in presets},
        overhead=Rollout(16, 3, 2, "cpu", 0, layers=2),
        probed=dense.config("tiny", layers=2, height=8, width=8),
        probing=_probing(frames=4, steps=2, layers=(0, 1), device="cpu", dtype="float32"),
        trained=scd.config("tiny", encoder_layers=2, decoder_layers=1, height=8, width=8),
        trained_frames=3,
        matrix=128,
        repeats=2,
        is_rehearsal=True,
    )


def _probing(frames: int, **changes) -> Settings:
    """The settings of the probe whose memory is measured."""
    return Settings(
        clips=1, context=2, probed=1, frames=frames, quick=True, experiments=PROBED, **changes
    )  # fmt: skip
