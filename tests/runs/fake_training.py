"""The folder of a training as `framelens train` leaves it, with tiny networks and an invented log."""

import csv
from pathlib import Path
from typing import Any

import tiny

from framelens.models.loading import checkpoint
from framelens.records.trainings import LOG, name_checkpoint

SIGMAS = (0.95, 0.6, 0.4, 0.05)
RECIPE = {"network": "dense", "videos": "tiles", "frames": 3, "steps": 40, "seed": 0, "teacher": ""}


def write(folder: Path, steps: tuple[int, ...] = (0, 20), sigmas: tuple = SIGMAS, **recipe: Any) -> Path:
    """The folder, with a checkpoint and a row of the log for each of these steps."""
    rows = []
    for step in steps:
        network = tiny.model(seed=step, **tiny.TILES)
        about = tiny.metadata(network, videos=recipe.get("videos", "tiles"))
        about["training"] = {"recipe": RECIPE | recipe, "step": step}
        checkpoint.write(name_checkpoint(folder, step), network.state_dict(), about)
        losses = {f"loss_sigma_{sigma}": (1 + place) / (1 + step) for place, sigma in enumerate(sigmas)}
        mean = sum(losses.values()) / len(losses)
        rows.append({"step": step, "seconds": 10.0 * step, "loss": mean} | losses)
    with open(folder / LOG, "w") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return folder
