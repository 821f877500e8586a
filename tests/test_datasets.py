"""Public data sets in their layouts: small ones are made here, read, and refused where they are not whole."""

import json
import shutil

import numpy as np
import pytest
import tiny_official
import tiny_vae
import torch
from PIL import Image

from framelens import models, videos
from framelens.models.encoders.dcae import SCALING_FACTOR
from framelens.probes.latents.__main__ import main as encode_latents
from framelens.probes.run.clips import read_clips
from framelens.probes.run.identity import identity_of
from framelens.probes.run.seeded import open_world
from framelens.probes.run.settings import Settings
from framelens.training import evaluate, loop, trainer
from framelens.training.__main__ import main as train
from framelens.training.recipes import Recipe
from framelens.training.source import open_source, require_fit, require_held_out
from framelens.training.state import TrainingFolder
from framelens.training.tensors import to_tensors
from framelens.videos import datasets, files
from framelens.videos import latents as stored
from framelens.videos.datasets import far, open_dataset

KEPT = videos.VALIDATION_SEED
LENGTH, SIDE = 8, 16


def film(path, length=LENGTH, side=SIDE, width=None):
    """A film that becomes brighter from frame to frame, by a sixteenth of the range."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = np.arange(length)[:, None, None, None] / 8 - 0.9
    files.write(path, np.broadcast_to(grey, (length, 3, side, width or side)).astype(np.float32))


def numbers(video):
    """The numbers of these frames in their film."""
    return np.rint((video.mean(axis=(2, 3, 4)) + 0.9) * 8).astype(int)


def actions_of(path, length=LENGTH, **beside):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, actions=np.arange(length, dtype=np.int32) % 4, **beside)


@pytest.fixture
def teco(tmp_path):
    for part, count in (("train", 3), ("test", 2)):
        for number in range(count):
            film(tmp_path / "minecraft" / part / str(number) / f"{number}.mp4")
            actions_of(tmp_path / "minecraft" / part / str(number) / f"{number}.npz")
    return tmp_path / "minecraft"


@pytest.fixture
def dmlab(tmp_path):
    for part in ("train", "test"):
        video = np.arange(LENGTH, dtype=np.uint8)[:, None, None, None] * np.ones((1, 6, 4, 3), np.uint8)
        actions_of(tmp_path / "dmlab" / part / "0" / "0.npz", video=video)
    return tmp_path / "dmlab"


@pytest.fixture
def latents(tmp_path):
    folder, entries = tmp_path / "minecraft_latent", []
    for number in range(12):
        place = folder / "training" / str(number)
        place.mkdir(parents=True)
        torch.save(torch.full((LENGTH, 4, 2, 2), float(number)), place / "latent.pt")
        actions_of(place / "actions.npz")
        paths = {"latent_path": "latent.pt", "action_path": "actions.npz"}
        entries.append({key: f"datasets/minecraft_latent/training/{number}/{v}" for key, v in paths.items()})
    (folder / "minecraft_train.json").write_text(json.dumps(entries))
    return folder


@pytest.fixture
def ucf101(tmp_path):
    folder = tmp_path / "UCF101"
    lists, names = folder / "ucfTrainTestlist", ("Archery", "Biking")
    lists.mkdir(parents=True)
    (lists / "classInd.txt").write_text("".join(f"{n} {name}\r\n" for n, name in enumerate(names, 1)))
    for part, numbers in (("trainlist01", (8, 9)), ("testlist01", (1,))):
        rows = [(f"{name}/v_{name}_g{n:02}_c01.avi", n) for n in numbers for name in names]
        for row, _ in rows:
            film(folder / "UCF-101" / f"{row}.mp4", width=24)
            (folder / "UCF-101" / f"{row}.mp4").rename(folder / "UCF-101" / row)
        ends = [f" {1 + names.index(row.split('/')[0])}" if part == "trainlist01" else "" for row, _ in rows]
        (lists / f"{part}.txt").write_text(
            "".join(f"{row}{end}\n" for (row, _), end in zip(rows, ends, strict=True))
        )
    return folder


@pytest.fixture
def realestate(tmp_path):
    folder = tmp_path / "RealEstate10K"
    for part, name in (("train", "0a"), ("train", "0b"), ("test", "0c")):
        lines = ["https://www.youtube.com/watch?v=x"]
        for number in range(LENGTH):
            time = 33_000 * number
            pose = np.concatenate([np.eye(3), np.full((3, 1), number / 10)], axis=1)
            lines.append(" ".join(map(str, [time, 0.5, 0.9, 0.5, 0.5, 0, 0, *pose.ravel()])))
            image = folder / "frames" / part / name / f"{time}.png"
            image.parent.mkdir(parents=True, exist_ok=True)
            grey = round((number / 8 + 0.1) * 127.5)
            Image.new("RGB", (32, 16), (grey,) * 3).save(image)
        (folder / part).mkdir(exist_ok=True)
        (folder / part / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("name", ["teco", "ucf101", "realestate10k"])
def test_a_layout_is_recognised_or_named_with_a_size(name, request):
    folder = request.getfixturevalue({"realestate10k": "realestate"}.get(name, name))
    assert {name, "far"} <= set(datasets.names())
    alone, named = open_source(str(folder)), open_source(f"{name}@8:{folder}")
    assert type(alone) is type(named) and named.SHAPE == (3, 8, 8)
    assert named.clips([KEPT], 2).video.shape == (1, 2, 3, 8, 8)
    assert open_world(f"{name}:{folder}").SHAPE == alone.SHAPE
    assert [open_dataset(other) for other in ("tiles", "own:x.txt", "nowhere", str(folder.parent))] == [
        None
    ] * 4


def test_actions_stand_beside_their_frames_wherever_a_clip_begins(teco):
    source = open_source(str(teco))
    assert (source.SHAPE, source.CONDITIONS, source.held_out) == ((3, SIDE, SIDE), 4, 2)
    batch = source.clips(range(12), 3)
    found = numbers(batch.video)
    np.testing.assert_array_equal(batch.actions, found % 4)
    assert len(set(found[:, 0])) > 2 and (np.diff(found, axis=1) == 1).all()
    assert (numbers(source.clips([KEPT, KEPT + 1], 3).video) == [0, 1, 2]).all()
    np.testing.assert_array_equal(source.clips([5], 3).video[0], batch.video[5])
    require_held_out(source, 2)
    with pytest.raises(ValueError, match="2 clips are kept"):
        require_held_out(source, 3)


def test_arrays_of_dmlab_are_read_as_they_are(dmlab):
    batch = open_source(str(dmlab)).clips([KEPT], 4)
    assert batch.video.shape == (1, 4, 3, 6, 4)
    np.testing.assert_allclose(batch.video[0, :, 0, 0, 0], np.arange(4) / 127.5 - 1, atol=1e-6)
    with pytest.raises(ValueError, match="not resized: leave out @8"):
        open_source(f"teco@8:{dmlab}").clips([KEPT], 4)


def test_latents_of_a_list_are_scaled_and_the_last_tenth_is_kept(latents):
    source = open_source(str(latents))
    assert (source.SHAPE, source.CONDITIONS, source.held_out) == ((4, 2, 2), 4, 1)
    assert far.SCALING == SCALING_FACTOR
    assert source.clips([KEPT], 2).video.mean() == pytest.approx(11 * SCALING_FACTOR)
    assert sorted(np.rint(source.clips(range(11), 2).video.mean(axis=(1, 2, 3, 4)) / far.SCALING)) == [
        *range(11)
    ]
    shutil.copy(latents / "minecraft_train.json", latents / "minecraft_val.json")
    assert open_source(str(latents)).held_out == 12
    with pytest.raises(ValueError, match="leave out @8"):
        open_source(f"far@8:{latents}")


def test_films_of_a_list_may_have_classes(teco):
    entries = [{"video_path": f"train/{n}/{n}.mp4", "label": n} for n in range(3)]
    (teco / "own_train.json").write_text(json.dumps(entries))
    (teco / "own_test.json").write_text("[]")
    (teco.parent / "other_train.json").write_text('{"loss": 1}')
    assert open_dataset(str(teco.parent)) is None, "another program's file"
    source = open_dataset(f"far:{teco}")
    assert source.is_labelled and source.CONDITIONS == 3
    assert source.clips([KEPT], 3).labels.tolist() == [2]


def test_classes_of_ucf101_are_conditions_of_whole_clips(ucf101):
    source = open_source(str(ucf101))
    assert (source.SHAPE, source.CONDITIONS, source.held_out) == ((3, 64, 64), 2, 2) and source.is_labelled
    batch = source.clips([KEPT, KEPT + 1, 0], 3)
    assert batch.labels.tolist()[:2] == [0, 1] and batch.actions is None
    video, given = to_tensors(batch, "cpu")
    assert video.shape == (3, 3, 3, 64, 64) and given.tolist() == batch.labels.tolist()


def test_cameras_are_those_of_the_frames_and_of_the_part_that_is_kept(realestate):
    source = open_source(f"realestate10k@16:{realestate}")
    assert (source.SHAPE, source.CONDITIONS) == ((3, 16, 16), 0)
    batch = source.clips(range(6), 3)
    found = numbers(batch.video)
    np.testing.assert_allclose(batch.state["pose"][..., 3], found[..., None] / 10 + np.zeros(3), atol=1e-6)
    # Of 32 x 16 pixels the middle 16 columns are kept: twice the share of the width.
    np.testing.assert_allclose(batch.state["intrinsics"][0, 0], [1.0, 0.9, 0.5, 0.5], atol=1e-6)
    read = [file.name for file in source.files([KEPT])]
    assert read[0] == "0.png" and read[-1] == "0c.txt" and len(read) == LENGTH + 1


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("teco", "test"),
        ("teco", "train/1/1.npz"),
        ("latents", "training/3/latent.pt"),
        ("latents", "training/7/actions.npz"),
        ("ucf101", "ucfTrainTestlist/classInd.txt"),
        ("ucf101", "UCF-101/Biking/v_Biking_g08_c01.avi"),
        ("realestate", "frames/train/0b"),
        ("realestate", "frames/test/0c/0.png"),
    ],
)
def test_the_first_missing_file_is_named(name, lost, request):
    folder = request.getfixturevalue(name)
    shutil.rmtree(folder / lost) if (folder / lost).is_dir() else (folder / lost).unlink()
    with pytest.raises(FileNotFoundError, match=f"{lost}.* is missing") as error:
        open_source(str(folder)).clips([KEPT], 2)
    assert "\n" not in str(error.value) and "complete" in str(error.value) or "names" in str(error.value)


@pytest.mark.parametrize(
    ("name", "file", "content", "said"),
    [
        ("teco", "test/0/0.mp4", b"not a film", "cannot read .*test/0/0.mp4"),
        ("teco", "test/0/0.npz", b"not an archive", "test/0/0.npz is damaged"),
        ("latents", "training/11/latent.pt", b"PK not tensors", "cannot read .*11/latent.pt|11/latent.pt is"),
        ("latents", "minecraft_train.json", b'[{"video_path"', "minecraft_train.json is not JSON"),
        ("latents", "minecraft_train.json", b'{"video_path": 1}', "minecraft_train.json holds no list"),
        ("latents", "minecraft_train.json", b'[{"video_path": 1}]', "clip 0 has neither latent_path nor"),
        ("ucf101", "UCF-101/Archery/v_Archery_g01_c01.avi", b"RIFF", "cannot read .*v_Archery_g01_c01.avi"),
        ("ucf101", "ucfTrainTestlist/classInd.txt", b"Archery", "classInd.txt: expected lines"),
        ("ucf101", "ucfTrainTestlist/testlist01.txt", b"Golf/x.avi", "Golf/x.avi, whose class is not in"),
        ("realestate", "frames/test/0c/0.png", b"GIF", "cannot read .*0c/0.png"),
        ("realestate", "test/0c.txt", b"https://x\n1 2 3\n", "0c.txt: line 2 of its cameras has 3 columns"),
    ],
)
def test_a_damaged_file_is_named_in_one_line(name, file, content, said, request):
    folder = request.getfixturevalue(name)
    (folder / file).write_bytes(content)
    with pytest.raises(ValueError, match=said) as error:
        open_source(str(folder)).clips([KEPT], 2)
    assert "\n" not in str(error.value)


def test_other_sizes_actions_and_lengths_are_refused(teco):
    source = open_source(str(teco))
    with pytest.raises(ValueError, match="has 8 frames, expected at least 9"):
        source.clips([KEPT], 9)
    actions = np.load(teco / "test/0/0.npz")["actions"]
    np.savez(teco / "test/0/0.npz", actions=actions + 9)
    with pytest.raises(ValueError, match="actions from 9 to 10, the first 64 recordings 0 to 3"):
        source.clips([KEPT], 2)
    film(teco / "test/1/1.mp4", side=32)
    with pytest.raises(ValueError, match=r"1.mp4 has frames of \(3, 32, 32\).*give a size"):
        source.clips([KEPT + 1], 2)
    assert open_source(f"teco@16:{teco}").clips([KEPT + 1], 2).video.shape[-1] == 16
    with pytest.raises(ValueError, match="1 to 4096 pixels a side, got 0"):
        open_source(f"teco@0:{teco}")
    with pytest.raises(FileNotFoundError, match="expected the folder of teco"):
        open_source("teco:nowhere")


@pytest.mark.slow
def test_a_network_is_trained_on_classes_and_scored_on_the_data_set(ucf101, tmp_path, capsys, monkeypatch):
    measure = trainer.measure_validation_loss
    monkeypatch.setattr(trainer, "measure_validation_loss", lambda *a, **o: measure(*a, **o, clips=6))
    monkeypatch.setattr(TrainingFolder, "_write_sample", lambda folder, run: None)
    shape = {"layers": 1, "patch": 4, "d_model": 24, "heads": 2, "rope_axes": (4, 4, 4)}
    videos_of = f"ucf101@8:{ucf101}"
    chosen = Recipe("dense", videos_of, architecture=shape, steps=2, batch=2, frames=4, autocast="float32")
    weights = loop.train(chosen, tmp_path / "out", "cpu", progress=False)
    model = models.load(str(weights))
    assert model.takes == "labels" and model.config.conditions == 2
    sizes = ["--clips", "2", "--steps", "1", "--context", "2"]
    assert evaluate.main(["--model", str(weights), *sizes]) == 0
    assert "actions" not in capsys.readouterr().out
    settings = Settings(clips=1, videos=videos_of)
    clips = read_clips(settings, model, 4)
    assert sorted(int(clip.cond) for clip in clips) == [0, 1]
    assert [file.kind for file in identity_of(model, settings, clips).inputs] == ["recording"] * 2
    assert evaluate.main(["--model", str(weights), *sizes, "--videos", f"ucf101:{ucf101}"]) == 2
    error = capsys.readouterr().err
    assert "has frames of (3, 64, 64) (channels, height, width), the model takes (3, 8, 8)" in error
    assert error.count("\n") == 1


def test_more_actions_than_a_network_knows_are_refused(teco):
    model = models.load("dense-tiles")
    source = open_source(f"teco@20:{teco}")
    require_fit(source, "teco", model)
    source.CONDITIONS = 6
    with pytest.raises(ValueError, match="teco has 6 actions or classes, the model knows 5"):
        require_fit(source, "teco", model)


@pytest.mark.slow
def test_films_of_a_data_set_are_encoded_with_their_conditions(teco, ucf101, dmlab, tmp_path, capsys):
    tiny_vae.dc().save_pretrained(tmp_path / "vae")

    def encode(source, *arguments):
        small = ["--vae", str(tmp_path / "vae"), "--frames", "3", "--size", "16", "16"]
        out = tmp_path / f"{len(list(tmp_path.glob('*.safetensors')))}.safetensors"
        status = encode_latents([*small, "--videos", str(source), "--out", str(out), *arguments])
        return stored.read(out) if status == 0 else capsys.readouterr().err

    held = encode(teco)
    assert held.video.shape == (5, 3, 8, 4, 4) and held.actions.tolist() == [[0, 1, 2]] * 5
    few = encode(f"ucf101:{ucf101}", "--clips", "3")
    assert few.video.shape[0] == 3 and few.labels.tolist() == [0, 0, 1] and few.actions is None
    assert encode(teco, "--stride", "2").actions is None
    assert "0.npz is not a film; of data sets, films alone are encoded" in encode(dmlab)
    assert encode("teco:nowhere").endswith("nowhere does not exist; expected the folder of teco\n")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--videos", "ucf101:nowhere"], "nowhere does not exist; expected the folder of ucf101"),
        (["--videos", "nowhere"], "no videos are called 'nowhere'"),
        (["--videos", "tiles", "--set", "videos=digits"], "--set does not take videos, which has an option"),
    ],
)
def test_videos_that_cannot_be_trained_on_are_refused_in_one_line(options, said, tmp_path, capsys):
    assert train(["--model", "dense-tiles", "--out", str(tmp_path / "out"), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("framelens train: ") and said in line and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_network_of_the_authors_is_scored_on_latents_by_the_published_protocol(latents, tmp_path, capsys):
    for number in range(12):
        video = torch.randn(LENGTH, tiny_official.CHANNELS, 8, 8)
        torch.save(video, latents / "training" / str(number) / "latent.pt")
    torch.save(tiny_official.scd_weights(), tmp_path / "scd.pt")
    request = ["--model", str(tmp_path / "scd.pt"), "--videos", str(latents), "--clips", "1", "--steps", "1"]
    protocol = ["--context", "2", "--predict", "3", "--best-of", "2"]
    assert evaluate.main([*request, *protocol]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "PSNR (dB) of a free run, best of 2, mean of 3 frames" in found
    assert evaluate.main(request) == 2
    assert capsys.readouterr().err.count("\n") == 1, "neither says how many frames there are"
