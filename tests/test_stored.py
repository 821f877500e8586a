"""Clips that are streamed from files: each is given once in an order, and validation is kept apart."""

from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from framelens import models, videos
from framelens.diffusion.contract import traits
from framelens.training import loop, trainer
from framelens.training.recipes import Recipe
from framelens.training.source import open_source, require_held_out
from framelens.training.state import TrainingFolder
from framelens.videos import latents
from framelens.videos.worlds import tiles


@pytest.fixture
def folder(tmp_path):
    """Two files with 14 and 9 clips, each filled with its own number."""
    place, first = tmp_path / "latents", 0
    for name, count in (("a", 14), ("b", 9)):
        number = np.arange(first, first + count, dtype=np.float32)
        clips = np.broadcast_to(number[:, None, None, None, None], (count, 5, 2, 4, 4))
        latents.write(
            place / f"{name}.safetensors", clips, text=np.broadcast_to(number[:, None, None], (count, 3, 2))
        )
        first += count
    return place


def numbers(source, seeds):
    batch = source.clips(seeds, 2)
    assert batch.video.shape == (len(batch), 2, 2, 4, 4) and batch.text.shape == (len(batch), 3, 2)
    assert (batch.video[:, 0, 0, 0, 0] == batch.text[:, 0, 0]).all()
    return batch.video[:, 0, 0, 0, 0].astype(int).tolist()


def test_every_clip_is_read_once_before_one_is_read_again(folder):
    source = open_source(str(folder))
    assert (source.total, source.held_out) == (23, 2) and (source.SHAPE, source.PROMPT) == ((2, 4, 4), (3, 2))
    first, second = numbers(source, range(21)), numbers(source, range(21, 42))
    assert sorted(first) == sorted(second) == list(range(21)) and first != second
    assert numbers(open_source(str(folder)), [30, 4]) == [second[9], first[4]]


def test_clips_of_validation_are_kept_apart(folder):
    source = open_source(str(folder))
    assert numbers(source, [videos.VALIDATION_SEED, videos.VALIDATION_SEED + 1]) == [21, 22]
    require_held_out(source, 2)
    with pytest.raises(ValueError, match="2 clips .* got 3"):
        require_held_out(source, 3)
    require_held_out(tiles, 1000)


def test_a_name_of_a_world_is_the_world():
    assert open_source("tiles") is tiles


def test_what_cannot_be_read_is_named(folder, tmp_path):
    cases = SimpleNamespace(
        gone=(tmp_path / "nowhere", "nowhere"),
        empty=(tmp_path / "empty", "no .safetensors"),
        single=(tmp_path / "one.safetensors", "1 clips"),
        other=(tmp_path / "other.safetensors", "expected latents"),
    )
    cases.empty[0].mkdir()
    latents.write(cases.single[0], np.zeros((1, 2, 2, 4, 4), np.float32))
    save_file({"weights": np.zeros((3, 3), np.float32)}, cases.other[0])
    for path, said in vars(cases).values():
        with pytest.raises(ValueError, match=said):
            open_source(str(path))
    latents.write(folder / "c.safetensors", np.zeros((3, 5, 1, 4, 4), np.float32))
    with pytest.raises(ValueError, match="c.safetensors.*one shape"):
        open_source(str(folder))
    (folder / "c.safetensors").write_bytes(b"not a file of tensors")
    with pytest.raises(ValueError, match="c.safetensors"):
        open_source(str(folder))
    with pytest.raises(ValueError, match="5 frames, not 9"):
        open_source(str(folder / "a.safetensors")).clips([0], 9)


def test_a_training_reads_its_clips_from_files(folder, tmp_path, monkeypatch):
    measure = trainer.measure_validation_loss
    monkeypatch.setattr(trainer, "measure_validation_loss", lambda *a, **o: measure(*a, **o, clips=6))
    monkeypatch.setattr(TrainingFolder, "_write_sample", lambda folder, run: None)
    shape = {"layers": 1, "patch": 2, "d_model": 24, "heads": 2, "rope_axes": (4, 4, 4)}
    chosen = Recipe("dense", str(folder), architecture=shape, steps=2, batch=2, frames=3, autocast="float32")
    file = loop.train(chosen, tmp_path / "out", "cpu", progress=False)
    assert traits(models.load(str(file))).latent, "what it was trained on are latents"
