"""Files of latents: every format gives the same clips, and what is wrong with a file is one line."""

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import save_file

from framelens.videos import latents

VIDEO = tiny.draw(3, 5, 2, 4, 4).numpy()
TEXT = tiny.draw(3, 4, 6, seed=1).numpy()


def test_what_is_written_is_read_again_with_all_that_comes_with_it(tmp_path):
    actions, labels = np.arange(15).reshape(3, 5), np.array([4, 5, 6])
    file = latents.write(
        tmp_path / "sub" / "a.safetensors", VIDEO, about={"encoder": "x"}, text=TEXT, actions=actions,
        labels=labels, negative=TEXT[0],
    )  # fmt: skip
    assert latents.about(file) == {"encoder": "x"}
    assert [path.name for path in file.parent.iterdir()] == ["a.safetensors"], "nothing half written is left"
    batch = latents.read(file, frames=3, limit=2)
    np.testing.assert_array_equal(batch.video, VIDEO[:2, :3])
    np.testing.assert_array_equal(batch.actions, actions[:2, :3])
    np.testing.assert_array_equal(batch.text, TEXT[:2])
    assert batch.labels.tolist() == [4, 5] and len(batch) == 2
    np.testing.assert_array_equal(batch.negative, TEXT[0])
    for read, written in zip(latents.read_prompts(file), (TEXT, TEXT[0]), strict=True):
        np.testing.assert_array_equal(read, written)


def test_every_format_gives_the_same(tmp_path):
    np.save(tmp_path / "a.npy", VIDEO)
    np.savez(tmp_path / "b.npz", latents=VIDEO, text=TEXT)
    np.savez(tmp_path / "c.npz", whatever=VIDEO)
    torch.save(torch.from_numpy(VIDEO), tmp_path / "d.pt")
    torch.save({"latents": torch.from_numpy(VIDEO), "note": torch.zeros(1)}, tmp_path / "e.pt")
    save_file({"latents": torch.from_numpy(VIDEO)}, tmp_path / "f.safetensors")
    for file in sorted(tmp_path.iterdir()):
        assert latents.is_file(str(file))
        np.testing.assert_array_equal(latents.read(file).video, VIDEO)
    assert latents.read(tmp_path / "b.npz").text is not None


def test_half_precision_becomes_float32(tmp_path):
    save_file({"latents": torch.from_numpy(VIDEO).bfloat16()}, tmp_path / "a.safetensors")
    video = latents.read(tmp_path / "a.safetensors").video
    assert video.dtype == np.float32
    np.testing.assert_array_equal(video, torch.from_numpy(VIDEO).bfloat16().float())


def test_a_world_or_a_video_is_no_file_of_latents():
    assert not any(map(latents.is_file, ("tiles", "film.mp4", "folder/", "own")))


NAN = np.where(np.arange(3)[:, None, None, None, None] == 1, np.nan, VIDEO).astype(np.float32)


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"latents": VIDEO[0]}, r"latents .*\[5, 2, 4, 4\].*\[clips, frames, channels"),
        ({"latents": VIDEO[:0]}, r"latents .*\[0, 5, 2, 4, 4\]"),
        ({"latents": VIDEO.astype(np.int64)}, "latents .*int64"),
        ({"latents": NAN}, r"latents .*\[1\]"),
        ({"latents": VIDEO, "text": TEXT[0]}, r"text .*\[4, 6\].*\[clips, tokens, width\]"),
        ({"latents": VIDEO, "text": TEXT[:2]}, r"text .*\[2, 4, 6\].* 3 "),
        ({"latents": VIDEO, "negative": TEXT}, r"negative .*\[3, 4, 6\].*\[tokens, width\]"),
        ({"latents": VIDEO, "negative": TEXT[0] * np.nan}, r"\[0, 1, 2, 3\]"),
        (
            {"latents": VIDEO, "text": TEXT, "negative": TEXT[0, :2]},
            r"negative .*\[2, 6\].*\[4, 6\]",
        ),
        (
            {"latents": VIDEO, "actions": np.zeros((3, 4), int)},
            "actions .* 3 .* 5 ",
        ),
        ({"latents": VIDEO, "labels": np.zeros(3)}, r"labels .*float64 \[3\].*\[clips\]"),
        ({"moments": VIDEO, "mean": VIDEO}, "latents"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(tmp_path, held, message):
    np.savez(tmp_path / "a.npz", **held)
    with pytest.raises(ValueError, match=message) as error:
        latents.read(tmp_path / "a.npz")
    assert "\n" not in str(error.value) and "a.npz" in str(error.value)


def test_clips_that_are_too_short_are_told(tmp_path):
    np.save(tmp_path / "a.npy", VIDEO)
    with pytest.raises(ValueError, match=r"\b5 .*\b6\b.*--frames"):
        latents.read(tmp_path / "a.npy", frames=6)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.pt", "a.safetensors"])
def test_damaged_files_and_files_with_code_are_refused(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=rf"{name}"):
        latents.read(tmp_path / name)
    (tmp_path / name).write_bytes(b"no latents" * 9)
    with pytest.raises(ValueError, match=rf"{name}") as error:
        latents.read(tmp_path / name)
    assert "\n" not in str(error.value)
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="objects.npy"):
        latents.read(tmp_path / "objects.npy")


def test_only_what_is_known_is_written(tmp_path):
    with pytest.raises(ValueError, match="text, actions, labels, negative.*masks"):
        latents.write(tmp_path / "a.safetensors", VIDEO, masks=VIDEO)
    with pytest.raises(ValueError, match=r"\.safetensors"):
        latents.write(tmp_path / "a.npy", VIDEO)
    with pytest.raises(ValueError, match="latents.*text"):
        latents.read_prompts(latents.write(tmp_path / "a.safetensors", VIDEO))
