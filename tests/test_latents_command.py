"""The latents command: one file, as its reader expects it; resumed without loss; shown again."""

import json
import re

import numpy as np
import pytest
import tiny_vae
import torch
import xarray as xr
from safetensors.torch import load_file, save_file

from framelens.models.encoders.prompts import open_text_encoder
from framelens.models.encoders.vae import open_vae
from framelens.probes.latents import __main__ as latents
from framelens.probes.latents import make
from framelens.records import write_netcdf
from framelens.videos import files
from framelens.videos import latents as reader

pytestmark = pytest.mark.slow

PROMPTS = "a red ball\nthe green cat\n"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return tiny_vae.save_pipeline(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    """Two films: two windows of 5 frames in one, one in the other."""
    folder = tmp_path_factory.mktemp("footage")
    for name, frames, seed in (("one", 11, 4), ("two", 6, 5)):
        video = tiny_vae.video(frames, 8, 12, seed=seed)[0].numpy().repeat(4, 2).repeat(4, 3)
        files.write(folder / f"{name}.mp4", video)
    return folder


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text(PROMPTS)
    return path


@pytest.fixture
def command(pipeline, tmp_path):
    small = ["--frames", 2, "--size", 16, 24]

    def run(*arguments, model=pipeline, out=tmp_path / "clips.safetensors"):
        wanted = ["--model", model, *(["--out", out] if out else []), *small, *arguments]
        return latents.main([str(word) for word in wanted])

    return run


def test_one_file_holds_latents_prompts_and_their_origin(command, footage, prompts, pipeline, tmp_path):
    assert command("--videos", footage, "--prompts", prompts) == 0
    held = load_file(tmp_path / "clips.safetensors")
    vae, encoder = open_vae(str(pipeline)), open_text_encoder(str(pipeline))
    pixels = files.clips(footage, frames=5, size=(16, 24), limit=2).video
    latent = torch.cat([vae.encode(torch.tensor(clip)[None]) for clip in pixels])
    assert torch.equal(held["latents"], latent)
    assert torch.equal(held["text"], encoder.embed(PROMPTS.split("\n")[:2]))
    assert torch.equal(held["negative"], encoder.embed([""])[0])
    said = reader.about(tmp_path / "clips.safetensors")
    assert said["prompts"] == ["a red ball", "the green cat"] and said["negative"] == ""
    assert said["sources"] == [
        {"file": f"{film}.mp4", "first_frame": 0, "frames": 5, "stride": 1, "frame_rate": 8.0}
        for film in ("one", "two")
    ]
    assert said["vae"]["class"] == "AutoencoderKLWan" and said["text"]["class"] == "UMT5EncoderModel"
    assert said["versions"]["torch"] == torch.__version__ and said["size"] == [16, 24]
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_the_reader_of_probes_takes_it(command, footage, tmp_path):
    one = tmp_path / "one.txt"
    one.write_text("a cat")
    assert command("--videos", footage, "--prompts", one) == 0
    clips = reader.read(tmp_path / "clips.safetensors", frames=2)
    assert clips.video.shape == (3, 2, 4, 2, 3)
    assert clips.text is not None and clips.text.shape == (3, 512, 16)
    assert np.array_equal(clips.text[0], clips.text[2])


def test_prompts_alone_and_videos_alone(command, footage, prompts, tmp_path):
    assert command("--prompts", prompts, out=tmp_path / "text.safetensors") == 0
    assert set(load_file(tmp_path / "text.safetensors")) == {"text", "negative"}
    assert command("--videos", footage / "two.mp4", "--stride", 1, "--clips", 4) == 0
    held = load_file(tmp_path / "clips.safetensors")
    assert {name: list(x.shape) for name, x in held.items()} == {"latents": [1, 2, 4, 2, 3]}


def test_a_stopped_command_goes_on_where_it_was(command, footage, prompts, tmp_path, monkeypatch, capsys):
    assert command("--videos", footage, "--prompts", prompts, out=tmp_path / "whole.safetensors") == 0
    write, written = make.write, []

    def stops_after_one(path, *rest):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write(path, *rest)

    monkeypatch.setattr(make, "write", stops_after_one)
    assert command("--videos", footage, "--prompts", prompts) == 130
    assert not (tmp_path / "clips.safetensors").exists()
    written.clear()
    monkeypatch.setattr(make, "write", lambda path, *rest: (written.append(path), write(path, *rest)))
    assert command("--videos", footage, "--prompts", prompts) == 0
    assert len(written) == 5  # the second clip, two prompts, the negative one, the file
    whole, resumed = (load_file(tmp_path / f"{name}.safetensors") for name in ("whole", "clips"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_other_settings_never_mix(command, footage, monkeypatch, capsys, tmp_path):
    assert command("--videos", footage) == 0
    before = (tmp_path / "clips.safetensors").stat().st_mtime_ns
    assert command("--videos", footage) == 0
    assert (tmp_path / "clips.safetensors").stat().st_mtime_ns == before
    assert command("--videos", footage, "--clips", 1) == 2
    assert "clips.safetensors" in capsys.readouterr().err
    partial = tmp_path / "new.safetensors.partial"
    partial.mkdir()
    (partial / "settings.json").write_text("{}")
    assert command("--videos", footage, out=tmp_path / "new.safetensors") == 2
    assert "new.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["film", "torch"])
def test_a_stopped_file_is_not_resumed_on_another_film_or_version(
    command, footage, monkeypatch, capsys, tmp_path, change
):
    film = tmp_path / "one.mp4"
    film.write_bytes((footage / "one.mp4").read_bytes())
    with monkeypatch.context() as patch:
        patch.setattr(make, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert command("--videos", film) == 130
    if change == "film":
        film.write_bytes(film.read_bytes() + b"\0")
    else:
        record = tmp_path / "clips.safetensors.partial" / "settings.json"
        record.write_text(record.read_text().replace(f'"torch": "{torch.__version__}"', '"torch": "1.0.0"'))
    capsys.readouterr()
    assert command("--videos", film) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("framelens latents")]
    assert ("one.mp4" if change == "film" else "torch 1.0.0") in line


def test_decoded_files_show_what_the_vae_decodes(command, footage, tmp_path, pipeline):
    command("--videos", footage, "--clips", 1)
    source, shown = tmp_path / "clips.safetensors", tmp_path / "shown"
    assert command("--decode", source, "--format", "gif", out=shown) == 0
    expected = open_vae(str(pipeline)).decode(load_file(source)["latents"])[0].numpy()
    found = files.clips(shown / "0000.gif", frames=5, size=(16, 24)).video[0]
    assert np.abs(found - expected).mean() < 0.1 < np.abs(expected).mean()


@pytest.fixture
def run(tmp_path):
    """A run's samples of latents [channel 4, 2 x 3], two clips of two frames."""
    folder = tmp_path / "run"
    values = np.random.default_rng(0).normal(size=(2, 2, 2, 4, 2, 3)).astype(np.float32)
    image = ("frame", "channel", "row", "col")
    dataset = xr.Dataset(
        {"video": (("clip", "mode", *image), values), "truth": (("clip", *image), values[:, 0] + 1)},
        {"clip": [0, 1], "mode": ["teacher_forced", "free_running"], "frame": [0, 1]},
        {"latent": 1},
    )
    write_netcdf(folder / "samples.nc", dataset)
    return folder


def test_previews_are_small_decoded_frames_beside_what_was_there(command, run, pipeline):
    before = xr.load_dataset(run / "samples.nc")
    assert command("--preview", run, "--longest", 12, out=None) == 0
    assert before.identical(xr.load_dataset(run / "samples.nc")), "what the run drew is left as it is"
    after = xr.load_dataset(run / "samples_preview.nc")
    assert "--preview" in after.attrs["command"]
    assert after.preview.dims == ("clip", "mode", "pixel_frame", "colour", "pixel_row", "pixel_col")
    assert after.preview.shape == (2, 2, 5, 3, 8, 12) and after.preview.dtype == np.uint8
    assert after.truth_preview.shape == (2, 5, 3, 8, 12)
    assert after.latent_frame.values.tolist() == [0, 1, 1, 1, 1]
    pixels = open_vae(str(pipeline)).decode(torch.tensor(before.truth.values[1:]))[0].numpy()
    averaged = pixels.reshape(5, 3, 8, 2, 12, 2).mean((3, 5))
    shown = after.truth_preview.values[1] / 127.5 - 1
    assert np.abs(shown - averaged).max() < 1 / 127


def test_previews_can_be_made_again_in_another_size(command, run):
    for longest, size in ((12, (8, 12)), (99, (16, 24))):
        assert command("--preview", run, "--longest", longest, out=None) == 0
        assert xr.load_dataset(run / "samples_preview.nc").preview.shape[-2:] == size


def test_what_a_run_drew_becomes_videos(command, run):
    assert command("--decode", run, "--clips", 1, out=None) == 0
    names = {path.name for path in (run / "videos").iterdir()}
    assert names == {f"0000_{name}.mp4" for name in ("teacher_forced", "free_running", "truth")}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--videos.*--prompts"),
        (["--videos", "nowhere"], "nowhere"),
        (["--videos", "FOOTAGE", "--size", "16", "20"], r"\b8\b"),
        (["--videos", "FOOTAGE", "--frames", "0"], r"--frames .*\b1\b"),
        (["--videos", "FOOTAGE", "--frames", "4"], "11 .* 13"),
        (["--videos", "FOOTAGE", "--stride", "0"], r"\b1\b"),
        (["--videos", "FOOTAGE", "--dtype", "int8"], "int8"),
        (["--videos", "FOOTAGE", "--model", "nowhere"], "nowhere"),
        (["--videos", "FOOTAGE", "--prompts", "PROMPTS", "--clips", "3"], "2 .*3 "),
        (["--videos", "FOOTAGE/two.mp4", "--prompts", "PROMPTS"], "2 .*1 "),
        (["--prompts", "PROMPTS", "--out", "text.pt"], r"\.safetensors"),
        (["--decode", "PROMPTS"], "prompts.txt"),
        (["--preview", "FOOTAGE"], "samples.nc"),
    ],
)
def test_bad_requests_are_one_line(command, footage, prompts, capsys, arguments, said):
    places = {"FOOTAGE": str(footage), "PROMPTS": str(prompts), "FOOTAGE/two.mp4": str(footage / "two.mp4")}
    assert command(*(places.get(word, word) for word in arguments)) == 2
    error = capsys.readouterr().err.strip()
    assert re.search(said, error) and error.startswith("framelens latents: ") and "\n" not in error


def test_latents_of_another_vae_and_runs_of_pixels_are_refused(command, run, tmp_path, capsys):
    save_file({"latents": torch.zeros(1, 1, 16, 2, 2)}, tmp_path / "other.safetensors")
    assert command("--decode", tmp_path / "other.safetensors", out=None) == 2
    assert re.search(r"\b4 .*\b16\b", capsys.readouterr().err)
    write_netcdf(run / "samples.nc", xr.load_dataset(run / "samples.nc").assign_attrs(latent=0))
    assert command("--preview", run, out=None) == 2
    assert str(run) in capsys.readouterr().err


def test_help_names_the_options(capsys):
    with pytest.raises(SystemExit) as stop:
        latents.main(["--help"])
    assert not stop.value.code and "--text-encoder" in capsys.readouterr().out


def test_the_settings_of_a_file_are_json(command, footage, tmp_path):
    command("--videos", footage, "--clips", 1)
    assert json.dumps(reader.about(tmp_path / "clips.safetensors"))
