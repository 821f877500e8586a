"""Clips are of as many films as there are, controls of other films, and intervals are over films."""

import json
from itertools import pairwise
from pathlib import Path

import fake_evidence
import fake_run
import numpy as np
import pytest
import tiny
import torch
import xarray as xr

from framelens.analyses.averages import summary
from framelens.analyses.decision.kept import Resample
from framelens.analyses.decision.split import split
from framelens.analyses.readout import ridge_readout, shuffle_clips
from framelens.analyses.sample import ONE_FILM, per_film, sample_of
from framelens.probes.__main__ import main
from framelens.probes.run.clips import read_clips
from framelens.probes.run.pairing import control_of
from framelens.probes.run.settings import Settings
from framelens.records.plan import Plan
from framelens.reports.page.page import page
from framelens.reports.runs import open_run
from framelens.videos import Window, files, latents
from framelens.videos.choice import choose_clips, choose_windows

FRAMES = 4


def write_films(folder, *lengths):
    """Films a.gif, b.gif, ... of that many frames, each with a level of its own that rises frame by frame."""
    for index, frames in enumerate(lengths):
        level = np.linspace(0, 0.1, frames, dtype=np.float32) + index * 0.3 - 0.9
        video = np.broadcast_to(level[:, None, None, None], (frames, 3, 8, 8))
        files.write(folder / f"{'abcdefg'[index]}.gif", video)
    return folder


def places(clips):
    return [(clip.window.film[0], clip.window.first_frame) for clip in clips]


# Which clips


@pytest.mark.parametrize("wanted", [1, 3, 5, 8, 30])
@pytest.mark.parametrize("windows", [[1], [9], [3, 1, 7], [2] * 6, [20, 20]])
def test_windows_are_different_and_of_as_many_films_as_there_are(windows, wanted):
    found = choose_windows(windows, wanted)
    assert len(found) == len(set(found)) == min(wanted, sum(windows))
    assert len({film for film, _ in found}) == min(wanted, len(windows))
    assert all(0 <= index < windows[film] for film, index in found)


def test_windows_of_one_film_are_spread_from_its_first_to_its_last():
    assert choose_windows([101], 5) == [(0, 0), (0, 25), (0, 50), (0, 75), (0, 100)]
    assert choose_windows([1] * 9, 3) == [(0, 0), (4, 0), (8, 0)]


def test_entries_that_name_their_film_are_chosen_alike():
    assert choose_clips(list("aaaabb"), 4) == [0, 4, 3, 5]
    assert choose_clips(list("aab"), 9) == [0, 2, 1]


@pytest.fixture
def model():
    return tiny.model()


def test_a_folder_of_films_gives_clips_and_controls_of_different_films(tmp_path, model):
    """Before, all clips and their control were neighbouring windows of the first film."""
    settings = Settings(clips=4, videos=str(write_films(tmp_path, 60, 60, 60, 60, 60)))
    clips = read_clips(settings, model, 10)
    assert places(clips) == [(name, 0) for name in "abcde"]
    levels = {round(float(clip.video.mean()), 1) for clip in clips}
    assert len(levels) == 5
    assert [control_of(clips, index).window.film[0] for index in range(4)] == list("bcde")


def test_controls_are_of_another_film_where_one_film_has_most_of_the_clips(tmp_path, model):
    settings = Settings(clips=5, videos=str(write_films(tmp_path, 40, 4)))
    clips = read_clips(settings, model, FRAMES)
    assert places(clips) == [("a", 0), ("b", 0), ("a", 8), ("a", 16), ("a", 28), ("a", 36)]
    assert [control_of(clips, index).window.film[0] for index in range(5)] == list("babbb")


def test_controls_in_one_film_are_as_far_away_as_it_allows(tmp_path, model):
    film = write_films(tmp_path, 60) / "a.gif"
    clips = read_clips(Settings(clips=4, videos=str(film)), model, FRAMES)
    first = [start for _, start in places(clips)]
    assert first[0] == 0 and first[-1] == 56 and min(b - a for a, b in pairwise(first)) >= 12
    controls = [control_of(clips, index).window.first_frame for index in range(4)]
    assert controls == [56, 56, 0, 0] or controls == [56, 56, 56, 0]


def test_the_same_clips_are_read_again(tmp_path, model):
    settings = Settings(clips=4, videos=str(write_films(tmp_path, 30, 30)))
    first, second = (read_clips(settings, model, FRAMES) for _ in range(2))
    assert all(
        torch.equal(a.video, b.video) and a.window == b.window for a, b in zip(first, second, strict=True)
    )


def test_a_world_has_no_films_and_its_control_is_the_next_clip():
    model = tiny.model(**tiny.TILES)
    clips = read_clips(Settings(clips=2, videos="tiles"), model, FRAMES)
    assert [clip.window for clip in clips] == [None] * 3
    assert control_of(clips, 0) is clips[1] and control_of(clips, 1) is clips[2]


def test_latents_that_name_their_film_are_chosen_over_films(tmp_path):
    values = np.arange(6, dtype=np.float32)[:, None, None, None, None] * np.ones((1, 3, 2, 2, 2), np.float32)
    windows = [Window(Path(film), 3, 5, 2, 10.0) for film in "aaaabb"]
    sources = [window.describe() for window in windows]
    named = latents.write(tmp_path / "named.safetensors", values, about={"sources": sources})
    found = latents.read(named, limit=3)
    assert found.video[:, 0, 0, 0, 0].tolist() == [0, 4, 3]
    assert found.windows == (windows[0], windows[4], windows[3])
    for about in ({}, {"sources": sources[:2]}, {"sources": ["a"] * 6}):
        bare = latents.write(tmp_path / "bare.safetensors", values, about=about)
        found = latents.read(bare, limit=3)
        assert found.video[:, 0, 0, 0, 0].tolist() == [0, 1, 2] and found.windows == ()


# Intervals


def of_films(values, films, controls=None):
    coords = {"film": ("clip", films), "control_film": ("clip", controls or [*films[1:], films[0]])}
    return xr.DataArray(values, coords, ("clip", *(["run"] if values.ndim > 1 else [])))


def test_intervals_over_films_cover_where_clips_of_a_film_are_alike():
    """Six films of four clips: three quarters of the variance are of films. Over clips 95 % would be 60 %."""
    rng, films, runs = np.random.default_rng(0), np.repeat(list("abcdef"), 4).tolist(), 2000
    values = rng.normal(size=(6, runs)).repeat(4, 0) + rng.normal(size=(24, runs)) / 3**0.5
    over_films, over_clips = (
        summary(of_films(values, films)),
        summary(xr.DataArray(values, dims=("clip", "run"))),
    )
    covered = [float(((each.low <= 0) & (each.high >= 0)).mean()) for each in (over_films, over_clips)]
    assert 0.93 <= covered[0] <= 0.97 and covered[1] < 0.75
    rows = Resample(sample_of(of_films(values, films)).count).rows(of_films(values, films))
    low, high = np.quantile(rows[1:], [0.025, 0.975], axis=0)
    assert 0.93 <= ((low <= 0) & (high >= 0)).mean() <= 0.97


def test_films_have_equal_weight_and_missing_clips_are_left_out():
    values = of_films(np.array([1.0, 2, 6, np.nan]), list("abaa"))
    assert per_film(values).values.tolist() == [3.5, 2]
    assert np.isnan(per_film(values, skipna=False).values[0])
    assert float(summary(values)["mean"]) == 2.75


@pytest.mark.parametrize(
    ("films", "controls", "words", "unit", "count"),
    [
        ("aabb", "bbaa", "2 films, 4 clips", "film", 2),
        ("abcd", "bcda", "4 films, 4 clips", "film", 4),
        ("aaaa", "aaaa", "one film, 4 clips", "clip", 4),
        ("a", "b", "1 clip", "clip", 1),
        ("", "", "3 clips", "clip", 3),
    ],
)
def test_a_sample_says_its_films(films, controls, words, unit, count):
    values = np.zeros(len(films) or 3)
    sample = sample_of(
        of_films(values, list(films), list(controls)) if films else xr.DataArray(values, dims="clip")
    )
    assert (sample.describe(), sample.unit, sample.count) == (words, unit, count)
    assert sample.note == (ONE_FILM if films == "aaaa" else "")


def test_a_readout_leaves_out_whole_films():
    """Within a film, features give its identity away, so a fit that saw the film would read it perfectly."""
    films = list("abcdef" * 3)
    draws = torch.Generator().manual_seed(1)
    identity = torch.eye(6).repeat(3, 1)[:, None].expand(18, 16, 6)
    features = torch.cat([identity, torch.randn(18, 16, 8, generator=draws)], -1)
    targets = torch.randn(6, 1, 4, generator=draws).repeat(3, 1, 1).expand(18, 16, 4)
    assert ridge_readout(features, targets).mean() > 0.9
    assert ridge_readout(features, targets, films).mean() < 0.1
    with pytest.raises(ValueError, match="4 films, got 3 films"):
        ridge_readout(features, targets, list("abc" * 6))


def test_the_null_of_a_readout_is_of_another_film():
    films = list("aaabbcdd")
    for seed in range(5):
        shuffled = shuffle_clips(torch.arange(8.0)[:, None], seed, films)[:, 0].long().tolist()
        assert sorted(shuffled) == list(range(8))
        assert all(films[clip] != films[other] for clip, other in enumerate(shuffled))


# What a run says


def with_films(data, films, controls=None):
    coords = {"film": ("clip", films), "control_film": ("clip", controls or [*films[1:], films[0]])}
    return {name: stored.assign_coords(coords) for name, stored in data.items()}


def test_the_verdict_counts_films():
    data = fake_evidence.datasets(layers=8, clips=12)
    few = split(with_films(data, list("abc" * 4)), 8)
    assert few.verdict == "open" and few.reason.startswith("Not decided: 3 films are too few")
    assert few.would_decide == "To decide: probe at least 5 films (--videos, a folder of more films)."
    enough = split(with_films(data, list("abcdef" * 2)), 8)
    assert enough.verdict == "separable" == split(data, 8).verdict
    one = split(with_films(data, ["a"] * 12, ["a"] * 12), 8)
    assert one.verdict == "separable" and one.remarks[0] == ONE_FILM
    assert ONE_FILM not in enough.remarks + split(data, 8).remarks


def test_the_page_counts_films(tmp_path):
    folder = fake_run.write(tmp_path / "run", layers=4, steps=4, heads=2, clips=6, verdict="separable")
    manifest = json.loads((folder / "manifest.json").read_text())

    def words(films, controls, notes=()):
        windows = [Window(Path(film), 0, 12).describe() for film in films]
        changed = manifest | {"windows": windows, "control_films": controls, "notes": notes}
        (folder / "manifest.json").write_text(json.dumps(changed))
        return page(open_run(folder), [], {})

    several = words(list("abcdea"), list("bcdeab"))
    assert "5 films, 6 clips of 12 frames" in several and "intervals over 5 films (" in several
    few = words(list("ababab"), list("bababa"))
    assert "2 films, 6 clips: too few for an interval." in few
    one = words(["a"] * 6, ["a"] * 6, [ONE_FILM])
    assert "one film, 6 clips of 12 frames" in one and ONE_FILM in one and "intervals over 6 clips:" in one
    assert ONE_FILM not in several


@pytest.mark.slow
@pytest.mark.parametrize("lengths", [(24, 24), (40,)], ids=["two films", "one film"])
def test_files_manifest_and_plan_of_a_run_name_the_films(tmp_path, lengths):
    film = write_films(tmp_path, *lengths)
    checkpoint = tiny.checkpoint(tmp_path / "tiny.safetensors", tiny.model())
    options = "--clips 2 --steps 2 --frames 4 --context 2 --probed 1 --workers 1 --run films".split()
    options += "--experiments cut noise_invariance rollouts --statistics block_norms".split()
    assert main(["--model", str(checkpoint), "--videos", str(film), "--out", str(tmp_path), *options]) == 0
    folder = tmp_path / "tiny" / "films"
    films = ["a.gif", "b.gif"] if len(lengths) == 2 else ["a.gif"] * 2
    for file in folder.glob("*.nc"):
        stored = xr.load_dataset(file, engine="netcdf4")
        assert (stored.film.values.tolist(), stored.control_film.values.tolist()) == (films, films[::-1])
    manifest = json.loads((folder / "manifest.json").read_text())
    windows = [window["file"] for window in manifest["windows"][:2]]
    assert (windows, manifest["control_films"]) == (films, films[::-1])
    plan, said = Plan.read(folder / "plan.json"), len(lengths) == 1
    assert (manifest["notes"] == [ONE_FILM]) is (ONE_FILM in plan.remarks) is said
    assert (plan.run.films, plan.run.is_one_film) == (len(lengths), said)
