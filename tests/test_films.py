"""Films are read as a player shows them; notes are printed once; nothing is left out silently."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.sidedata.sidedata import Type

from framelens.probes.latents import windows as latent_windows
from framelens.videos import files, latents
from framelens.videos.film import upright

UNIT = 1 << 16


def film(path: Path, pictures: np.ndarray, rate: int = 10, times=None, **stream_settings) -> Path:
    """A film of these pictures [f h w 3] in the container that the suffix names; B frames as x264 likes."""
    interlaced = stream_settings.pop("interlaced", False)
    kind = {".mkv": "matroska", ".m4v": "mp4"}.get(path.suffix, path.suffix[1:])
    with av.open(path, "w", format=kind) as container:
        stream = container.add_stream("libx264", rate=rate, options=stream_settings.pop("options", {}))
        stream.height, stream.width, stream.pix_fmt = *pictures.shape[1:3], "yuv420p"
        for name, value in stream_settings.items():
            setattr(stream.codec_context, name, value)
        if interlaced:
            stream.codec_context.flags |= 1 << 18 | 1 << 29
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = (index if times is None else times[index]), Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def counting(frames: int, side: int = 32) -> np.ndarray:
    """Pictures that become brighter frame by frame."""
    grey = np.linspace(0, 255, frames).astype(np.uint8)
    return np.broadcast_to(grey[:, None, None, None], (frames, side, side, 3))


def cut(source: Path, target: Path, packets: int, first: int = 0) -> Path:
    """The film from that packet on, shifted so that some packets begin before 0: an edit list hides them."""
    with av.open(source) as old, av.open(target, "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        step = None
        for number, packet in enumerate(old.demux(video=0)):
            if packet.dts is None or number < first:
                continue
            step = step or packet.duration
            packet.pts, packet.dts = packet.pts - packets * step, packet.dts - packets * step
            packet.stream = stream
            new.mux(packet)
    return target


def count_shown(path: Path) -> int:
    with av.open(path) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [0, 1, 7, 12])
@pytest.mark.parametrize("gop", [1, 5, 20])
def test_as_many_windows_are_counted_as_are_read(tmp_path, hidden, gop):
    whole = film(tmp_path / "whole.mp4", counting(20), options={"g": str(gop)})
    path = cut(whole, tmp_path / "cut.mp4", hidden)
    read = len(list(files.windows(path, 1, (8, 8))))
    assert files.count_windows(path, 1) == read == count_shown(path)
    for frames, stride in ((2, 1), (3, 2)):
        counted = files.count_windows(path, frames, stride)
        assert counted == len(list(files.windows(path, frames, (8, 8), stride)))
        assert files.count_windows(path, frames, stride, limit=1) == 1
    found = latent_windows.windows(path, 2, 1, None)
    assert len(list(latent_windows.read(found, 2, (8, 8), 1))) == len(found) == read // 2


def test_an_edit_list_hides_frames(tmp_path):
    whole = film(tmp_path / "whole.mp4", counting(20), options={"g": "20"})
    with av.open(cut(whole, tmp_path / "cut.mp4", 7)) as container:
        packets = sum(packet.size > 0 for packet in container.demux(video=0))
    assert packets > files.count_windows(tmp_path / "cut.mp4", 1), "else the test above tests nothing"


def test_a_film_that_lost_its_beginning_is_counted_right(tmp_path):
    whole = film(tmp_path / "whole.mp4", counting(20), options={"g": "8"})
    path = cut(whole, tmp_path / "lost.mkv", 0, first=3)
    assert files.count_windows(path, 1) == len(list(files.windows(path, 1, (8, 8))))


def draw_box(height: int, width: int, box: tuple[slice, slice]) -> np.ndarray:
    pictures = np.zeros((3, height, width, 3), np.uint8)
    pictures[:, box[0], box[1]] = 255
    return pictures


@pytest.mark.parametrize(("aspect", "half"), [(Fraction(8, 5), 15), (Fraction(1, 2), 48), (Fraction(1), 24)])
@pytest.mark.parametrize("size", [(144, 256), (64, 64)])
def test_a_square_on_the_screen_stays_square(tmp_path, aspect, half, size):
    box = slice(120, 168), slice(180 - half, 180 + half)
    path = film(tmp_path / "a.mp4", draw_box(288, 360, box), sample_aspect_ratio=aspect)
    lit = files.clips(path, 1, size).video[0, 0].mean(0) > 0
    wide, high = lit.any(0).sum(), lit.any(1).sum()
    assert wide / high == pytest.approx(1, abs=0.1) and high < size[0]


def test_absurd_pixels_are_refused(tmp_path):
    path = film(tmp_path / "a.mp4", counting(2), sample_aspect_ratio=Fraction(30, 1))
    with pytest.raises(ValueError, match=r"a\.mp4: its pixels are 30"):
        files.clips(path, 1, (8, 8))


MATRICES = {
    "as it is": ((1, 0, 0, 1), [[1, 2], [3, 4]]),
    "mirrored": ((-1, 0, 0, 1), [[2, 1], [4, 3]]),
    "upside down, mirrored": ((1, 0, 0, -1), [[3, 4], [1, 2]]),
    "half a turn": ((-1, 0, 0, -1), [[4, 3], [2, 1]]),
    "clockwise": ((0, 1, -1, 0), [[3, 1], [4, 2]]),
    "anticlockwise": ((0, -1, 1, 0), [[2, 4], [1, 3]]),
    "transposed": ((0, 1, 1, 0), [[1, 3], [2, 4]]),
    "transposed across": ((0, -1, -1, 0), [[4, 2], [3, 1]]),
}


@pytest.mark.parametrize("name", MATRICES)
def test_frames_are_turned_and_mirrored_as_the_matrix_says(tmp_path, name):
    (a, b, c, d), expected = MATRICES[name]
    corners = np.array([[1, 2], [3, 4]], np.uint8) * 60
    picture = corners.repeat(16, 0).repeat(16, 1)[None, ..., None].repeat(3, -1).repeat(2, 0)
    path = film(tmp_path / "a.mp4", picture)
    plain = np.array([UNIT, 0, 0, 0, UNIT, 0, 0, 0, 1 << 30], ">i4").tobytes()
    x, y = (32 if a + c < 0 else 0), (32 if b + d < 0 else 0)
    turned = np.array([v * UNIT for v in (a, b, 0, c, d, 0, x, y)] + [1 << 30], ">i4").tobytes()
    head, track = path.read_bytes().split(b"tkhd")
    path.write_bytes(head + b"tkhd" + track.replace(plain, turned, 1))
    seen = (files.clips(path, 1, (2, 2)).video[0, 0, 0] + 1) * 127.5 / 60
    assert np.array_equal(seen.round().astype(int), expected)


class Turned:
    """A frame with a display matrix of these entries."""

    def __init__(self, *entries: int):
        self.side_data, self.type, self.entries = (self,), Type.DISPLAYMATRIX, entries

    def __bytes__(self):
        return np.array(self.entries, np.int32).tobytes()


def test_a_turned_frame_has_turned_pixels():
    image = np.zeros((4, 6, 3), np.uint8)
    turned, aspect = upright(image, Turned(0, 1, 0, -1, 0, 0, 0, 0, 1), 1.5)
    assert turned.shape == (6, 4, 3) and aspect == pytest.approx(1 / 1.5)
    assert upright(image, Turned(-1, 0, 0, 0, 1, 0, 0, 0, 1), 1.5)[1] == 1.5
    with pytest.raises(ValueError, match="multiple of 90"):
        upright(image, Turned(1, 1, 0, -1, 1, 0, 0, 0, 1), 1.5)


def notes(capsys) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_interlaced_film_is_noted_once(tmp_path, capsys):
    path = film(tmp_path / "a.mp4", counting(6), interlaced=True)
    files.clips(path, 2, (8, 8))
    files.clips(path, 2, (8, 8))
    assert [("interlaced" in line, str(path) in line) for line in notes(capsys)] == [(True, True)]


@pytest.mark.parametrize(("transfer", "named"), [(16, "PQ"), (18, "HLG"), (1, None), (2, None)])
def test_film_of_high_dynamic_range_is_noted_once(tmp_path, capsys, transfer, named):
    path = film(tmp_path / "a.mp4", counting(6), color_trc=transfer)
    files.clips(path, 2, (8, 8))
    files.clips(path, 2, (8, 8))
    lines = notes(capsys)
    assert len(lines) == (named is not None)
    assert all(f"{path} is HDR ({named})" in line for line in lines)


@pytest.mark.parametrize(("times", "is_noted"), [((0, 1, 2, 3, 4), False), ((0, 1, 2, 7, 8), True)])
def test_a_variable_frame_rate_is_noted_once(tmp_path, capsys, times, is_noted):
    path = film(tmp_path / "a.mp4", counting(5), times=times)
    files.clips(path, 5, (8, 8))
    files.clips(path, 5, (8, 8))
    assert ["variable" in line for line in notes(capsys)] == [True] * is_noted


@pytest.mark.slow
@pytest.mark.parametrize("rate", [24, 30, 60])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".gif"])
def test_a_constant_rate_in_coarse_ticks_is_not_called_variable(tmp_path, capsys, rate, suffix):
    video = np.random.default_rng(0).uniform(-1, 1, (20, 3, 8, 12)).astype(np.float32)
    if suffix == ".gif":
        path = files.write(tmp_path / "a.gif", video, frames_per_second=rate)
    else:
        path = film(tmp_path / f"a{suffix}", counting(20), rate=rate)
    files.clips(path, 20, (8, 8))
    assert not notes(capsys)


@pytest.mark.parametrize(("rates", "is_noted"), [((60, 15), True), ((30, 30), False)])
def test_films_of_different_rates_are_noted_and_each_rate_is_kept(tmp_path, capsys, rates, is_noted):
    for number, rate in enumerate(rates):
        film(tmp_path / f"{number}.mp4", counting(6), rate=rate)
    files.clips(tmp_path, 3, (8, 8))
    found = latent_windows.windows(tmp_path, 3, 1, None)
    assert [w.describe()["frame_rate"] for w in found] == [float(r) for r in rates for _ in "ab"]
    lines = notes(capsys)
    assert len(lines) == is_noted and all("60" in line and "15" in line for line in lines)


def test_films_are_read_in_the_order_of_the_numbers_in_their_names(tmp_path):
    names = ["clip_1.mp4", "clip_2.mp4", "clip_10.mp4", "clip_10b.mp4", "other.mp4"]
    for name in reversed(names):
        film(tmp_path / name, counting(4))
    assert [file.name for file in files.files_of(tmp_path)] == names
    assert [window.file.name for window in latent_windows.windows(tmp_path, 4, 1, None)] == names


def test_each_clip_of_a_film_says_where_it_is(tmp_path):
    for name, rate in (("a.mp4", 60), ("b.mp4", 15)):
        film(tmp_path / name, counting(13), rate=rate)
    found = [window.describe() for window in files.clips(tmp_path, 3, (8, 8), stride=2).windows]
    keys = ("file", "first_frame", "frames", "stride", "frame_rate")
    assert [tuple(place[key] for key in keys) for place in found] == [
        ("a.mp4", 0, 3, 2, 60.0), ("a.mp4", 6, 3, 2, 60.0),
        ("b.mp4", 0, 3, 2, 15.0), ("b.mp4", 6, 3, 2, 15.0),
    ]  # fmt: skip


def test_every_kind_of_film_in_a_folder_is_read_and_others_are_named(tmp_path, capsys):
    for name in ("a.mp4", "b.mov", "c.mkv", "d.m4v", "e.avi"):
        film(tmp_path / name, counting(4))
    (tmp_path / "._a.mp4").write_bytes(b"\0\5\26\7" + bytes(40))
    (tmp_path / "f.wmv").write_bytes(bytes(9))
    (tmp_path / "notes.txt").write_text("nothing")
    assert [file.name for file in files.files_of(tmp_path)] == ["a.mp4", "b.mov", "c.mkv", "d.m4v", "e.avi"]
    assert len(files.clips(tmp_path, 4, (8, 8)).video) == 5
    (line,) = notes(capsys)
    assert "._a.mp4" in line and "f.wmv" in line and "notes.txt" not in line


def test_a_film_whose_name_has_a_colon_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    film(tmp_path / "a.mp4", counting(4)).rename("http:a.mp4")
    assert len(files.clips("http:a.mp4", 4, (8, 8)).video) == 1


def test_a_pointer_to_a_film_is_named(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with pytest.raises(ValueError, match=r"a\.mp4: .*Git LFS"):
        files.clips(path, 4, (8, 8))


@pytest.mark.parametrize(("frames", "is_noted"), [(4, True), (3, False)])
def test_latents_whose_axes_cannot_be_told_apart_are_noted_once(tmp_path, capsys, frames, is_noted):
    video = np.zeros((3, frames, 4, 4, 4), np.float32)
    np.save(tmp_path / "a.npy", video)
    latents.read(tmp_path / "a.npy")
    latents.read(tmp_path / "a.npy")
    assert ["axes" in line for line in notes(capsys)] == [True] * is_noted
    latents.write(tmp_path / "ours.safetensors", video, about={"made": "here"})
    latents.read(tmp_path / "ours.safetensors")
    assert not notes(capsys)
