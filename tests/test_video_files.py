"""What is written is read back, and every unusable file is named with the reason."""

import av
import numpy as np
import pytest

from framelens.videos import encoding, files


def waves(frames: int = 10, height: int = 32, width: int = 48) -> np.ndarray:
    """Smooth colours that move, float32 [f c h w]."""
    row, column = np.mgrid[:height, :width]
    pictures = [
        [column / width * 2 - 1, row / height * 2 - 1, np.sin((row + column + 3 * frame) / 6)]
        for frame in range(frames)
    ]
    return np.array(pictures, dtype=np.float32)


def patches(frames: int, colours: int = 40) -> np.ndarray:
    """Noise in a few colours that bytes can hold, float32 [f c h w]."""
    generator = np.random.default_rng(0)
    palette = generator.integers(0, 256, (colours, 3))
    pictures = palette[generator.integers(0, colours, (frames, 8, 12))]
    return (pictures / 127.5 - 1).transpose(0, 3, 1, 2).astype(np.float32)


def psnr(video: np.ndarray, truth: np.ndarray) -> float:
    return float(10 * np.log10(4 / np.mean((video - truth) ** 2)))


def test_mp4_returns_the_video(tmp_path):
    video = waves()
    small = files.clips(files.write(tmp_path / "small.mp4", video), 10, (32, 48)).video
    large = files.clips(files.write(tmp_path / "large.mp4", video, scale=4), 10, (32, 48)).video
    assert small.shape == (1, 10, 3, 32, 48) and small.dtype == np.float32
    assert psnr(small[0], video) > 28
    assert psnr(large[0], video) > 40, "chroma is stored at half the size, so scale must help"


def test_gif_returns_few_colours_to_the_rounding_of_a_byte(tmp_path):
    video = patches(frames=5)
    read = files.clips(files.write(tmp_path / "patches.gif", video), 5, (8, 12)).video[0]
    assert np.abs(read - video).max() <= 1 / 127.5 + 1e-6


def test_each_pixel_of_a_scaled_gif_is_a_square_of_equal_ones(tmp_path):
    path = files.write(tmp_path / "patches.gif", patches(frames=2), scale=3)
    large = files.clips(path, 2, (24, 36)).video
    assert np.array_equal(large, large[..., ::3, ::3].repeat(3, axis=-1).repeat(3, axis=-2))


@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_the_same_video_makes_the_same_bytes_and_the_same_clips(tmp_path, name):
    copies = [files.write(tmp_path / f"{i}" / name, waves()) for i in range(5)]
    assert len({copy.read_bytes() for copy in copies}) == 1
    first, second = (files.clips(copies[0], 3, (8, 8)).video for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize(("name", "rate"), [("a.mp4", 8), ("a.mp4", 12.5), ("a.gif", 10)])
def test_the_frame_rate_is_kept(tmp_path, name, rate):
    with av.open(files.write(tmp_path / name, waves(), frames_per_second=rate)) as container:
        assert float(container.streams.video[0].average_rate) == pytest.approx(rate)


def test_values_beyond_the_range_are_clipped(tmp_path):
    video = patches(frames=1) * 3
    read = files.clips(files.write(tmp_path / "a.gif", video), 1, (8, 12)).video[0]
    assert np.abs(read - video.clip(-1, 1)).max() <= 1 / 127.5 + 1e-6


def test_windows_follow_each_other_without_overlap_and_drop_the_rest(tmp_path):
    video = patches(frames=11)
    path = files.write(tmp_path / "a.gif", video)
    whole = files.clips(path, 11, (8, 12)).video[0]
    fours = files.clips(path, 4, (8, 12)).video
    assert np.array_equal(fours, np.stack([whole[:4], whole[4:8]]))
    assert np.array_equal(files.clips(path, 4, (8, 12), limit=1).video, fours[:1])
    every_third = files.clips(path, 2, (8, 12), stride=3).video
    assert np.array_equal(every_third, np.stack([whole[[0, 3]], whole[[6, 9]]]))


def test_a_folder_is_read_in_order_of_name(tmp_path):
    for name, level in {"b.mp4": 0.5, "a.gif": -0.5, "c.GIF": 0.9}.items():
        files.write(tmp_path / name, np.full((4, 3, 16, 16), level, np.float32))
    (tmp_path / "notes.txt").write_text("not a video")
    found = files.clips(tmp_path, 2, (4, 4))
    assert found.video.mean(axis=(1, 2, 3, 4)) == pytest.approx([-0.5, -0.5, 0.5, 0.5, 0.9, 0.9], abs=0.02)
    assert found.actions is None and found.state == {}


@pytest.mark.parametrize(("height", "width"), [(16, 48), (48, 16)])
def test_the_centre_is_cropped_to_the_aspect_and_nothing_is_stretched(tmp_path, height, width):
    video = np.full((1, 3, height, width), -1, np.float32)
    top, left = height // 2 - 8, width // 2 - 8
    video[..., top : top + 16, left : left + 16] = 1
    assert (files.clips(files.write(tmp_path / "a.gif", video), 1, (4, 4)).video == 1).all()


def test_shrinking_averages_over_the_area(tmp_path):
    stripes = np.tile(np.array([-1, 1], np.float32), (1, 3, 16, 8))
    read = files.clips(files.write(tmp_path / "a.gif", stripes), 1, (4, 4)).video
    assert np.abs(read).max() <= 0.02


def test_growing_gives_the_asked_size(tmp_path):
    path = files.write(tmp_path / "a.gif", waves(1, 6, 7))
    assert files.clips(path, 1, (20, 33)).video.shape == (1, 1, 3, 20, 33)


def test_a_file_that_asks_to_be_turned_is_read_upright(tmp_path):
    picture = np.full((2, 3, 16, 16), -1, np.float32)
    picture[..., :8, :8] = 1
    path = files.write(tmp_path / "a.mp4", picture)
    # A phone held upright stores this matrix: turn by 90 degrees clockwise for display.
    identity = np.array([1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30], ">i4").tobytes()
    clockwise = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 16 << 16, 0, 1 << 30], ">i4").tobytes()
    header, track = path.read_bytes().split(b"tkhd")
    assert identity in track
    path.write_bytes(header + b"tkhd" + track.replace(identity, clockwise, 1))
    corners = files.clips(path, 1, (2, 2)).video[0, 0, 0]
    assert corners == pytest.approx(np.array([[-1, 1], [-1, -1]]), abs=0.1)


def test_unusable_paths_are_named_with_the_reason(tmp_path):
    (tmp_path / "notes.txt").write_text("not a video")
    with pytest.raises(FileNotFoundError, match="nowhere.mp4"):
        files.clips(tmp_path / "nowhere.mp4", 1, (4, 4))
    with pytest.raises(FileNotFoundError, match=r"\.gif, .*\.mp4, \.webm"):
        files.clips(tmp_path, 1, (4, 4))
    with pytest.raises(ValueError, match=r"notes.txt.*\.gif, .*\.mp4, \.webm"):
        files.clips(tmp_path / "notes.txt", 1, (4, 4))


@pytest.mark.parametrize("content", [b"", b"hello" * 100], ids=["empty", "something else"])
@pytest.mark.parametrize("suffix", files.READABLE)
def test_unreadable_files_are_named_with_the_reason(tmp_path, suffix, content):
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^[^\n]*broken{suffix}: \w[^\n]*$"):
        files.clips(path, 1, (4, 4))


def test_a_file_cut_off_is_named_with_the_reason(tmp_path):
    path = files.write(tmp_path / "cut.mp4", waves())
    path.write_bytes(path.read_bytes()[:-800])
    with pytest.raises(ValueError, match="cut.mp4"):
        files.clips(path, 10, (4, 4))


def test_a_file_with_sound_only_is_named_with_the_reason(tmp_path):
    with av.open(tmp_path / "sound.webm", "w") as container:
        stream = container.add_stream("libopus", rate=48000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.float32), format="flt", layout="mono")
        sound.rate = 48000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(ValueError, match="sound.webm"):
        files.clips(tmp_path / "sound.webm", 1, (4, 4))


def test_short_files_say_how_many_frames_they_have(tmp_path):
    path = files.write(tmp_path / "short.gif", waves(frames=5))
    with pytest.raises(ValueError, match=r"short.gif .*\b5 .*\b6\b"):
        files.clips(path, 6, (4, 4))
    with pytest.raises(ValueError, match=r"short.gif .*\b3 .*\b2,.*\b4\b"):
        files.clips(tmp_path, 4, (4, 4), stride=2)


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"size": (0, 4)}, {"stride": 0}, {"limit": 0}])
def test_counts_below_one_are_refused(tmp_path, wrong):
    path = files.write(tmp_path / "a.gif", waves(frames=1))
    with pytest.raises(ValueError, match=r"\b1\b"):
        files.clips(path, **({"frames": 1, "size": (4, 4)} | wrong))


@pytest.mark.parametrize(
    ("name", "video", "settings", "reason"),
    [
        ("a.avi", waves(1), {}, r"a.avi.*\.gif, \.mp4"),
        ("a.mp4", waves(1, 7, 8), {}, "7x8.*scale=2"),
        ("a.mp4", waves(1)[:, :1], {}, r"\[frames, 3, height, width\].*\[1, 1, 32, 48\]"),
        ("a.mp4", waves(1)[:0], {}, r"\[0, 3, 32, 48\]"),
        ("a.gif", waves(1) * np.float32("nan"), {}, "."),
        ("a.gif", waves(1), {"scale": 0}, "scale .* 1.* 0"),
        ("a.gif", waves(1), {"frames_per_second": 0}, r"\b0\b"),
    ],
)
def test_what_cannot_be_written_leaves_no_file(tmp_path, name, video, settings, reason):
    with pytest.raises(ValueError, match=reason):
        files.write(tmp_path / name, video, **settings)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_halfway_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch):
    path = files.write(tmp_path / "a.gif", waves(2))
    before = path.read_bytes()
    monkeypatch.setattr(encoding, "_make_frames", lambda *_: iter([av.VideoFrame(48, 32, "rgb24"), 1 / 0]))
    with pytest.raises(ZeroDivisionError):
        files.write(path, waves(3))
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == before
