"""framelens emergence --checkpoints runs/train/X: the findings during training.

For every kept checkpoint, by layer: noise-seed invariance at sigma 1, similarity between denoising steps and
attention to earlier frames, at the last frame of a few held-out clips, beside the validation loss.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from framelens.probes.run.settings import Settings
from framelens.records import as_attributes, origin, write_netcdf
from framelens.records.commands import command_line, exits_as, read_options
from framelens.records.trainings import find_checkpoints, find_training


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="framelens emergence", description=__doc__)
    parser.add_argument(
        "--checkpoints", type=Path, required=True, help="folder of a training, or of its step-*.safetensors"
    )
    parser.add_argument(
        "--out", type=Path, help="netCDF file (default: emergence.nc in the training's folder)"
    )
    parser.add_argument("--clips", type=int, default=6, help="held-out clips")
    parser.add_argument("--steps", type=int, default=10, help="denoising steps")
    parser.add_argument("--seed", type=int, default=0, help="decides clips and noise")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    return parser


@exits_as("emergence")
def main(arguments: list[str]) -> int:
    """Exit status: 0, or 2 when the request cannot be met."""
    options = read_options(parser(), arguments)
    out = options.out or find_training(options.checkpoints) / "emergence.nc"
    settings = Settings(
        clips=options.clips, steps=options.steps, seed=options.seed, device=options.device, probed=1
    )
    found = _emergence(find_checkpoints(options.checkpoints), settings).astype("float32")
    command = command_line("emergence", arguments)
    print(write_netcdf(out, found.assign_attrs(_origin(command, options.checkpoints, settings))))
    return 0


def _origin(command: str, checkpoints: Path, settings: Settings) -> dict[str, Any]:
    """What is needed to repeat the file, as attributes: mappings as JSON."""
    about = {
        "checkpoints": str(checkpoints.resolve()),
        "seed": settings.seed,
        "settings": settings.describe(),
    }
    return as_attributes(origin(command, "torch", "numpy", "xarray") | about)


def _emergence(files: list[Path], settings: Settings) -> xr.Dataset:
    from framelens.records.progress import progress_bar

    parts = [_at_checkpoint(file, settings) for file in progress_bar(files, unit="checkpoint")]
    return xr.concat(parts, "checkpoint", join="outer").transpose("clip", "checkpoint", "layer", ...)


def _at_checkpoint(file: Path, settings: Settings) -> xr.Dataset:
    """noise_invariance, step_similarity_centred and cross_mass (clip, layer) of one checkpoint."""
    from framelens import models
    from framelens.diffusion.contract import traits
    from framelens.models.loading.memory import require_room_for_clips
    from framelens.probes.experiments import noise_invariance
    from framelens.probes.experiments.rollouts import watched_rollout
    from framelens.probes.run.clips import read_clips
    from framelens.probes.run.pairing import control_of, film_coords
    from framelens.probes.run.probed_clip import ProbedClip

    model = models.load(str(file), settings.device, settings.dtype)
    training = traits(model).source.metadata["training"]
    frames = traits(model).source.stated_frames
    if frames is None:
        raise ValueError(
            f"{file} does not say how long its training's clips were; train it with `make train`"
        )
    g = model.geometry
    require_room_for_clips(settings.clips + 1, frames, (g.channels, g.height, g.width), "--clips")
    clips = read_clips(settings, model, frames)
    rows = []
    for index in range(settings.clips):
        probed_clip = ProbedClip(
            index, {"trained": model}, clips[index], control_of(clips, index), settings, frames
        )
        _, watched = watched_rollout(
            probed_clip, model, "teacher_forced", ("step_similarity", "frame_attention")
        )
        invariance = noise_invariance.measure(probed_clip)["noise_invariance"].isel(network=0, frame=-1)
        similarity = watched["step_similarity"].centred_cosine.isel(frame=-1)
        different = ~np.eye(similarity.sizes["step"], dtype=bool)
        pairs = similarity.where(xr.DataArray(different, dims=("step", "step_b")))
        mass = watched["frame_attention"].cross_mass.isel(frame=-1).mean(("head", "step"))
        row = {
            "noise_invariance": invariance.centred_cosine.sel(sigma=1.0, drop=True),
            "step_similarity_centred": pairs.mean(("step", "step_b")),
            "cross_mass": mass,
        }
        bare = {name: values.reset_coords(drop=True) for name, values in row.items()}
        rows.append(xr.Dataset(bare).assign_coords(clip=[index], **film_coords(clips, index)))
    dataset = xr.concat(rows, "clip").assign_coords(checkpoint=training["step"])
    dataset["val_loss"] = float(training["validation"]["loss"])
    identity = {"file": file.name, "sha256": traits(model).source.sha256}
    return dataset.expand_dims("checkpoint").assign_coords(
        {name: ("checkpoint", [value]) for name, value in identity.items()}
    )


if __name__ == "__main__":
    sys.exit(main())
