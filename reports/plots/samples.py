"""Generated and true frames, and their error compared with two trivial guesses."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from framelens.analyses.averages import summary
from framelens.analyses.places import even_places
from framelens.reports.drawing import colours, style
from framelens.reports.drawing.tables import spell, tidy
from framelens.reports.runs import Run

needs = ("samples",)
order = 1
title = "Generated frames"
caption = (
    "First clip, trained network. Teacher forced: every frame is generated from true earlier frames. Free "
    "running: every frame is generated from the model's own earlier frames. Frames with a dark border were "
    "given; where a teacher-forced row is empty, the frame was not generated. Below: peak signal-to-noise "
    "ratio to the true frame, mean over clips, compared with repeating the previous true frame (copy last) "
    "and with the average of the given frames (mean frame). A blurry average scores well here, so a high "
    "ratio alone does not prove a good sample. For a model of latents the ratio is that of the latents, with "
    "the range of the true clip as peak; where it generates several frames at a time, copy last repeats the "
    "frame before them."
)
AS_COLOURS = "latents, their first three channels as colours"
OWN = "the truth is a sample of the model itself"
PREVIEW = "samples_preview"
"""What the latents command decodes; a run of pixels has none."""
COLUMNS = 12
COLOURS = {
    "teacher_forced": "#0072B2",
    "free_running": "#009E73",
    "copy_last": "#7A7A7A",
    "mean_frame": "#CC79A7",
}
DASHES = {"teacher_forced": "-", "free_running": "--", "copy_last": ":", "mean_frame": "-."}


@style.look
def draw(run: Run) -> tuple[Figure, pd.DataFrame]:
    """Strips of frames above the ratio by frame; bands are intervals over clips."""
    by_mode, previews = read_samples(run)
    stored = next(iter(by_mode.values()))
    context = int(run.manifest.settings["context"])
    shown = chosen_frames(stored.frame.values, context)
    strips = pictures(by_mode, previews)
    truth = strips["truth"]
    absent = {mode: own.psnr.isel(clip=0).isnull() for mode, own in by_mode.items()}

    picture = 6.0 / len(shown) * truth.sizes["row"] / truth.sizes["col"] + 0.1
    heights = (picture * len(strips) + 0.75, 2.0)
    figure = style.canvas(height=sum(heights))
    upper, lower = figure.subfigures(2, 1, height_ratios=heights)
    grid = upper.subplots(len(strips), len(shown), squeeze=False)
    for line, (name, video) in zip(grid, strips.items(), strict=True):
        for axes, frame in zip(line, shown, strict=True):
            if frame >= context and name in absent and bool(absent[name].sel(frame=frame)):
                leave_empty(axes, truth.sizes["row"] / truth.sizes["col"])
            else:
                show(axes, video.sel(frame=frame), frame < context)
        line[0].set_ylabel(name.replace("_", "\n"), rotation=0, ha="right", va="center")
    for axes, frame in zip(grid[0], shown, strict=True):
        axes.set_title(f"frame {frame}" if frame == shown[0] else str(frame), pad=3)
    table = ratios(lower.subplots(), by_mode, context)
    remarks = [AS_COLOURS] if stored.attrs.get("latent") and not previews else []
    remarks += [OWN] if str(run.manifest.settings["videos"]).split(":")[0] == "own" else []
    style.heading(upper, ": ".join([title, *("; ".join(remarks),) * bool(remarks)]), run, "samples")
    return figure, table


def read_samples(run: Run) -> tuple[dict[str, xr.Dataset], dict[str, xr.Dataset]]:
    """Samples by mode, and decoded previews by mode where the run has them."""
    modes = run.modes("samples")
    by_mode = {mode: run.read("samples", mode=mode) for mode in modes}
    return by_mode, {} if run.missing((PREVIEW,)) else {mode: run.read(PREVIEW, mode=mode) for mode in modes}


def pictures(
    by_mode: dict[str, xr.Dataset], previews: dict[str, xr.Dataset], clip: int = 0
) -> dict[str, xr.DataArray]:
    """A clip's true frames and those of each mode, (frame, channel, row, col) in [-1, 1].

    Latents are shown decoded where the run has previews, else by their first three channels, each scaled to
    its range in the truth.
    """
    stored = next(iter(by_mode.values()))
    clips = {"truth": stored.truth} | {mode: own.video for mode, own in by_mode.items()}
    clips = {name: video.isel(clip=clip) for name, video in clips.items()}
    if previews:
        truth = next(iter(previews.values())).truth_preview
        decoded = {mode: _pick_decoded(own.preview.isel(clip=clip)) for mode, own in previews.items()}
        return {"truth": _pick_decoded(truth.isel(clip=clip))} | decoded
    if not stored.attrs.get("latent"):
        return clips
    return latents_as_colours(clips, clips["truth"])


def remark_on(stored: xr.Dataset) -> str:
    """The remark after the number of a frame that is shown as it is stored; empty for pixels."""
    return f"; {AS_COLOURS}" if stored.attrs.get("latent") else ""


def to_pictures(stored: xr.Dataset, names: Iterable[str]) -> dict[str, xr.DataArray]:
    """These frames of one clip's dataset in [-1, 1]; latents as colours over the range of its truth."""
    frames = {name: stored[name] for name in names}
    return latents_as_colours(frames, stored.truth) if stored.attrs.get("latent") else frames


def latents_as_colours(videos: dict[str, xr.DataArray], truth: xr.DataArray) -> dict[str, xr.DataArray]:
    """The first three channels of latents (one where they are fewer), each in [-1, 1] over its range in the
    truth of that clip."""
    channels = slice(0, 3 if truth.sizes["channel"] >= 3 else 1)
    truth = truth.isel(channel=channels)
    over = [dim for dim in truth.dims if dim != "channel"]
    low, high = (truth.quantile(q, over).drop_vars("quantile") for q in (0, 1))
    span = (high - low).clip(min=1e-12)
    return {name: 2 * (video.isel(channel=channels) - low) / span - 1 for name, video in videos.items()}


def _pick_decoded(preview: xr.DataArray) -> xr.DataArray:
    """A clip's decoded pictures by the frame of latents they belong to, the last where there are several."""
    frame = preview.latent_frame.values
    last = np.flatnonzero(np.append(frame[1:] != frame[:-1], True))
    names = {"pixel_frame": "frame", "colour": "channel", "pixel_row": "row", "pixel_col": "col"}
    pictures = preview.isel(pixel_frame=last).drop_vars("latent_frame").rename(names)
    return (pictures / 127.5 - 1).assign_coords(frame=frame[last])


def chosen_frames(frames: np.ndarray, context: int) -> list[int]:
    """At most a dozen frames: the last two given ones, then generated ones evenly spaced."""
    given, generated = frames[frames < context][-2:], frames[frames >= context]
    even = even_places(len(generated), COLUMNS - len(given))
    return [int(frame) for frame in [*given, *generated[even]]]


def show(axes: Axes, frame: xr.DataArray, was_given: bool) -> None:
    """One frame in [-1, 1], grey or RGB, every pixel a square; given frames get a dark border."""
    pixels = np.clip((np.nan_to_num(frame.transpose("row", "col", "channel").values, nan=-1.0) + 1) / 2, 0, 1)
    if pixels.shape[-1] == 3:
        axes.imshow(pixels, interpolation="nearest")
    else:
        axes.imshow(pixels[..., 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(True)
    axes.spines[:].set(linewidth=2.2 if was_given else 0.4, color="#222222" if was_given else "0.7")


def leave_empty(axes: Axes, aspect: float) -> None:
    """The place of a frame that was not generated; aspect is its height over its width."""
    axes.set_box_aspect(aspect)
    axes.set(xticks=[], yticks=[], facecolor=colours.ABSENT)
    axes.spines[:].set_visible(False)
    axes.text(0.5, 0.5, "not\ngenerated", transform=axes.transAxes, ha="center", va="center", color="0.45",
              fontsize="x-small")  # fmt: skip


def ratios(axes: Axes, by_mode: dict[str, xr.Dataset], context: int) -> pd.DataFrame:
    """The ratio of each mode and of the trivial guesses by generated frame; returns what was drawn."""
    first = next(iter(by_mode.values()))
    curves = {mode: stored.psnr for mode, stored in by_mode.items()}
    curves |= {"copy_last": first.psnr_copy_last, "mean_frame": first.psnr_mean_frame}
    tables = []
    for name, values in curves.items():
        values = values.isel(frame=np.flatnonzero(values.frame >= context))
        drawn = summary(values.where(np.isfinite(values)))
        look, label = {"color": COLOURS[name], "linestyle": DASHES[name]}, name.replace("_", " ")
        if np.isnan(drawn["mean"]).any():
            look, label = look | {"linestyle": "", "markersize": 5}, f"{label}, at probed frames"
        style.line(axes, values.frame.values, drawn, name, label=label, **look)
        tables.append(tidy(drawn, curve=name))
    axes.set(xlabel="frame", ylabel="PSNR (dB)")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(ncols=4, loc="lower left", bbox_to_anchor=(0, 1.0))
    return pd.concat(tables, ignore_index=True)


def words(table: pd.DataFrame) -> str:
    """The ratio at the first and last generated frame of each curve, as sentences."""
    sentences = []
    for name, rows in table.dropna(subset=["mean"]).groupby("curve", sort=False):
        first, last = rows.iloc[0], rows.iloc[-1]
        sentences.append(
            f"{name.replace('_', ' ').capitalize()}: {spell(first, 1)} dB at frame {first['frame']}, "
            f"{spell(last, 1)} dB at frame {last['frame']}."
        )
    return " ".join(sentences)
