"""The folder of a training, as commands find what is in it: log, kept checkpoints, and scores of these.

    find_checkpoints(Path("runs/train/a"))      # [.../step-000000.safetensors, .../step-000200.safetensors]
    read_training(file)                         # {"recipe": {...}, "step": 200}

Imports nothing heavy.
"""

import json
from pathlib import Path
from typing import Any

from framelens.records.damage import DAMAGE

LOG = "log.csv"
"""Validation loss, in the mean and by noise level, at every kept checkpoint."""
SCORES = "scores.json"
"""What `framelens evaluate --checkpoints` writes."""
SCORED = "evaluate"
"""The kind of such a file, and of what `framelens evaluate --out` writes."""
HASHED = ("features", "lpips", "vae")
"""Options of networks that decide scores; the file has their hashes, and their places may differ."""
WEIGHTS = "model.safetensors"
CHECKPOINTS = "checkpoints"


def is_training(folder: Path) -> bool:
    """Whether the folder is that of a training with a log."""
    return (folder / LOG).is_file()


def name_checkpoint(training: Path, step: int) -> Path:
    """The file of the checkpoint at that step, whether or not it is there."""
    return training / CHECKPOINTS / f"step-{step:06d}.safetensors"


def find_training(path: Path) -> Path:
    """The folder of the training; `path` is that folder, or its folder of checkpoints."""
    return path if (path / CHECKPOINTS).is_dir() else path.parent


def find_checkpoints(path: Path) -> list[Path]:
    """The kept checkpoints by step; `path` is a training's folder, or its folder of checkpoints.

    FileNotFoundError where there is none.
    """
    inside = path / CHECKPOINTS
    files = list((inside if inside.is_dir() else path).glob("step-*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{path} holds no step-*.safetensors; `make train` keeps them")
    return sorted(files, key=lambda file: order_by_step(file.name))


def order_by_step(name: str) -> tuple[int, str]:
    """What sorts the names of checkpoints by step; beyond 999,999 they are longer."""
    return len(name), name


def read_training(file: Path) -> dict[str, Any]:
    """Recipe and step from the metadata of a checkpoint; ValueError for another file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as held:
            training = json.loads(held.metadata()["framelens"])["training"]
        return {"recipe": dict(training["recipe"]), "step": int(training["step"])}
    except (*DAMAGE, SafetensorError) as error:
        raise ValueError(f"{file} is not the result of a training ({type(error).__name__})") from None
