"""Frames that a run keeps of interventions, as pictures.

kept = kept_frames(run, "cut_frames")            # generated, plain, truth in [-1, 1], or latents as they are
LABELS["cut_frames"]                             # "cut from layer L on"
"""

import xarray as xr

from framelens.reports.runs import Run

LABELS = {
    "cut_frames": "cut from layer L on",
    "leave_one_out_frames": "layer L left out",
    "reuse_frames": "past fetched once, layers 0 to L",
}
"""What was done in layer L, by dataset."""


def kept_frames(run: Run, dataset: str, *variables: str) -> xr.Dataset:
    """The variables of a dataset of frames, all by default; pixels in [-1, 1] instead of bytes."""
    stored = run.read(dataset, *variables)
    return stored if stored.attrs.get("latent") else (stored / 127.5 - 1).assign_attrs(stored.attrs)
