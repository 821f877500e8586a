"""A tiny random twin of every family on disk, in the format of the real files, and what to tell of it."""

from pathlib import Path
from typing import Any

import oasis_reference
import tiny_anyflow
import tiny_official
import tiny_wan
import torch
from safetensors.torch import save_file

OFFICIAL = {"height": 2, "width": 4}


def _wan(folder: Path) -> tuple[Path, dict[str, Any]]:
    return tiny_wan.pipeline(folder / "wan", {"transformer": tiny_wan.stock()}), {}


def _self_forcing(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = folder / "checkpoints" / "self_forcing_dmd.pt"
    return tiny_wan.released(path, tiny_wan.original(tiny_wan.stock())), {"heads": 2}


def _skyreels(folder: Path) -> tuple[Path, dict[str, Any]]:
    return tiny_wan.folder(folder / "skyreels", tiny_wan.skyreels()), {"frames_per_chunk": 3}


def _anyflow(folder: Path) -> tuple[Path, dict[str, Any]]:
    tiny_anyflow.stock().save_pretrained(folder / "anyflow")
    return folder / "anyflow", tiny_anyflow.SAID


def _oasis(folder: Path) -> tuple[Path, dict[str, Any]]:
    save_file(oasis_reference.weights(), folder / "oasis500m.safetensors")
    return folder / "oasis500m.safetensors", {"height": 4, "width": 6, "max_frames": 3}


def _far(folder: Path) -> tuple[Path, dict[str, Any]]:
    torch.save(tiny_official.far_weights("label"), folder / "far_b.pth")
    return folder / "far_b.pth", OFFICIAL


def _far_long(folder: Path) -> tuple[Path, dict[str, Any]]:
    torch.save(tiny_official.far_long_weights(), folder / "far_b_long.pth")
    return folder / "far_b_long.pth", OFFICIAL | {"short_frames": 3}


def _scd(folder: Path) -> tuple[Path, dict[str, Any]]:
    torch.save({"ema": tiny_official.scd_weights()}, folder / "ema.pth")
    return folder / "ema.pth", OFFICIAL


FAMILIES = {
    "wan": _wan,
    "self_forcing": _self_forcing,
    "skyreels": _skyreels,
    "anyflow": _anyflow,
    "oasis": _oasis,
    "far": _far,
    "far_long": _far_long,
    "scd": _scd,
}


def twin(name: str, folder: Path) -> tuple[str, dict[str, Any]]:
    """The path of that family's twin, written into the folder, and what `models.load` needs."""
    path, said = FAMILIES[name](folder)
    return str(path), (tiny_wan.SAID if name in ("wan", "self_forcing", "skyreels") else {}) | said
