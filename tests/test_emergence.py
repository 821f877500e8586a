"""The findings during training: one file that says what it was made of."""

import hashlib
import json

import pytest
import tiny
import xarray as xr

from framelens.models.loading import checkpoint as _checkpoint
from framelens.probes import emergence

STEPS = (0, 20)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The file of two checkpoints, and the folder of those."""
    folder = tmp_path_factory.mktemp("train") / "checkpoints"
    for step in STEPS:
        network = tiny.model(seed=step, **tiny.TILES)
        about = tiny.metadata(network, frames=3)
        about["training"] |= {"step": step, "validation": {"loss": 1.0}}
        _checkpoint.write(folder / f"step-{step:06d}.safetensors", network.state_dict(), about)
    asked = ["--clips", "1", "--steps", "2", "--seed", "3"]
    assert emergence.main(["--checkpoints", str(folder), *asked]) == 0
    return xr.load_dataset(folder.parent / "emergence.nc", engine="netcdf4"), folder


def test_the_file_says_how_to_repeat_it(found):
    stored, folder = found
    settings = json.loads(stored.attrs["settings"])
    assert (settings["clips"], settings["steps"], settings["seed"]) == (1, 2, 3) and stored.attrs["seed"] == 3
    assert stored.attrs["command"].startswith("framelens emergence --checkpoints ")
    assert stored.attrs["checkpoints"] == str(folder) and "torch" in json.loads(stored.attrs["versions"])


def test_the_file_identifies_every_checkpoint(found):
    stored, folder = found
    assert stored.checkpoint.values.tolist() == list(STEPS)
    for name, sha256 in zip(stored.file.values, stored.sha256.values, strict=True):
        assert hashlib.sha256((folder / str(name)).read_bytes()).hexdigest() == sha256
