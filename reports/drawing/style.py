"""One look for all figures, and one function that writes them.

    @style.look
    def draw(run): ...

    style.save(figure, table, "reports/figures/depth")    # .png, .pdf, .csv

Figures are made without pyplot, so nothing global is opened or has to be closed.
"""

import io
import textwrap
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import wraps
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
import seaborn
import xarray as xr
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import LogFormatter
from PIL import Image

from framelens.analyses.intervals import enough
from framelens.records import replace_file
from framelens.records.manifest import TitledManifest
from framelens.reports.drawing.png import write_png
from framelens.reports.drawing.publication import current
from framelens.reports.runs import Run

# The palette of Okabe and Ito is distinct for every common colour blindness; the dashes are distinct in grey.
COLOURS = {"trained": "#0072B2", "random": "#D55E00", "other": "#7A7A7A", "uniform": "#000000"}
COLOURS |= {"shuffled": COLOURS["other"]}
DASHES = {"trained": "-", "random": "--", "other": ":", "shuffled": "-.", "uniform": (0, (1, 1))}
WORDS = {"trained": "trained", "random": "random weights", "other": "other context"}
WORDS |= {"shuffled": "shuffled targets", "uniform": "uniform"}
WIDTH = 7.2
DPI = 200
SCREEN_DPI = 100
RC = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.5,
    "pdf.fonttype": 42,
    "svg.hashsalt": "framelens",
    "font.family": "DejaVu Sans",
}


def own_look() -> AbstractContextManager[None]:
    """A context in which matplotlib has our settings, whatever the user's matplotlibrc holds."""
    return matplotlib.style.context(["default", {**seaborn.axes_style("ticks"), **RC}])


def look(draw: Callable) -> Callable:
    """The same function in our look; the caller's matplotlib settings stay as they were."""

    @wraps(draw)
    def draw_in_look(*args, **kwargs):
        with own_look():
            return draw(*args, **kwargs)

    return draw_in_look


class Picture(Figure):
    """A figure that keeps our look when it is saved or shown, and is a picture in a notebook.

    Ticks and the fonts of a PDF are made when a figure is saved, so the look must hold then, too.
    """

    def draw(self, renderer: Any) -> None:
        """Draws everything in our look."""
        with own_look():
            super().draw(renderer)

    def savefig(self, *args: Any, **options: Any) -> None:
        """Saves in our look, with Type 42 fonts in a PDF."""
        with own_look():
            super().savefig(*args, **options)

    def _repr_png_(self) -> bytes:
        """The picture for a notebook; no import of pyplot is needed."""
        before, self.dpi, buffer = self.dpi, SCREEN_DPI, io.BytesIO()
        Image.fromarray(draw_pixels(self)).save(buffer, "PNG", dpi=(SCREEN_DPI, SCREEN_DPI))
        self.dpi = before
        return buffer.getvalue()


def draw_pixels(figure: Figure) -> UInt8[np.ndarray, "h w 3"]:
    """The figure at its resolution. It is drawn once; savefig draws twice, to lay it out and to write it."""
    drawn = FigureCanvasAgg(figure)
    drawn.draw()
    return np.asarray(drawn.buffer_rgba())[..., :3]


def canvas(height: float, width: float = WIDTH) -> Picture:
    """An empty figure, size in inches, whose layout leaves room for its labels."""
    return Picture(figsize=(current().width or width, height), layout="constrained")


def heading(figure: FigureBase, title: str, run: Run, dataset: str, interval: bool = True) -> None:
    """Writes the title, the model, the clips, the mode where one was chosen, and what the band is."""
    sample, mode = run.sample(dataset), run.mode(dataset)
    more = sample.clips - run.probed_sample.clips
    which = " of its own" if more > 0 else f" of {run.probed_sample.clips}" if more < 0 else ""
    parts = [run.model, sample.describe() + which]
    if mode and dataset != "samples":
        parts.append(mode.replace("_", " "))
    if interval:
        over = f"band: 95% interval over {sample.unit}s"
        parts.append(over if enough(sample.count) else f"too few {sample.unit}s for an interval")
    write_above(figure, f"{title}\n{', '.join(parts)}")


def write_above(figure: FigureBase, text: str) -> None:
    """Writes a title in lines that fit, unless a publication goes without titles."""
    if current().has_title:
        letters = int(100 * (current().width or WIDTH) / WIDTH)
        lines = [textwrap.fill(line, max(letters, 30)) for line in text.split("\n")]
        figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=9)


def title(figure: FigureBase, text: str, run: Run) -> None:
    """Writes a title, and below it the summary in the run's manifest, in lines that fit."""
    write_above(figure, f"{text}\n{run.manifest_as(TitledManifest).summary}")


def arms(names: Iterable[str]) -> dict[str, dict]:
    """Colour, dash and marker of each network that is compared, the first of them in black."""
    colours = ["#000000", *seaborn.color_palette("colorblind", 9)]
    dashes, markers = ["-", "--", "-.", ":"], "osD^vP*X"
    return {
        str(name): {
            "color": colours[i % 10], "linestyle": dashes[i % 4], "marker": markers[i % 8], "markersize": 3.5,
            "linewidth": 1.2,
        }
        for i, name in enumerate(names)
    }  # fmt: skip


def spell_arm(name: str) -> str:
    """`token concat, projected 8+4` for `token_concat_projected 8+4`."""
    return name.replace("_projected", ", projected").replace("_", " ")


def line(
    axes: Axes, x: np.ndarray, values: xr.Dataset, kind: str, label: str | None = None, **options
) -> None:
    """Draws a mean as a line, its interval as a band (a bar at a lone point); values has mean, low, high."""
    options = {"color": COLOURS.get(kind), "linestyle": DASHES.get(kind, "-"), "marker": "o"} | options
    options.setdefault("markersize", 3 if len(x) <= 16 else 1.6)
    axes.plot(x, values["mean"], label=WORDS.get(kind, kind) if label is None else label, **options)
    if np.isfinite(values["low"]).any():
        axes.fill_between(x, values["low"], values["high"], color=options["color"], alpha=0.2, linewidth=0)
        lone = _lone(x, values)
        if lone.sizes["lone"]:
            axes.vlines(lone.x, lone.low, lone.high, color=options["color"], alpha=0.5, linewidth=1.2)


def _lone(x: np.ndarray, values: xr.Dataset) -> xr.Dataset:
    """x, low and high of the points with an interval and no neighbour, for which a band has no width."""
    has = np.isfinite(values["mean"].values) & np.isfinite(values["low"].values)
    beside = np.pad(has, 1)
    lone = has & ~beside[:-2] & ~beside[2:]
    columns = {"x": np.asarray(x), "low": values["low"].values, "high": values["high"].values}
    return xr.Dataset({name: ("lone", column[lone]) for name, column in columns.items()})


class _Plain(LogFormatter):
    """Labels the ticks that matplotlib labels on a logarithmic axis as 0.02, not as a power of ten."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def logarithmic(axes: Axes) -> None:
    """Makes the vertical axis logarithmic, its ticks plain numbers."""
    axes.set_yscale("log")
    plain_ticks(axes)


def plain_ticks(axes: Axes) -> None:
    """Labels the ticks of a logarithmic vertical axis, or of a colour bar, as plain numbers."""
    axes.yaxis.set_major_formatter(_Plain())
    axes.yaxis.set_minor_formatter(_Plain(labelOnlyBase=False))


def save(figure: Figure, table: pd.DataFrame, path: str | Path, source: str | None = None) -> list[Path]:
    """Writes path.png, path.pdf, the numbers of the figure as path.csv and the formats of a publication.

    Each file is whole or absent.

    `source` says what the figure shows, such as the command of its run; the files hold it as metadata.
    """
    path = Path(path)

    def pixels(partial: Path) -> None:
        write_png(draw_pixels(figure), partial, DPI, source)
        figure.set_layout_engine("none")  # the layout is found once

    def lines(partial: Path) -> None:
        # Without a date the same numbers give the same file.
        FigureCanvasPdf(figure).print_pdf(partial, metadata={"CreationDate": None, "Subject": source})
        figure.dpi = DPI

    def others(partial: Path) -> None:
        dateless = {"Date": None} if partial.suffix == ".svg" else None
        figure.savefig(partial, metadata=dateless)

    with own_look():
        figure.dpi = DPI
        return [
            replace_file(path.with_name(f"{path.name}.png"), pixels),
            replace_file(path.with_name(f"{path.name}.pdf"), lines),
            replace_file(
                path.with_name(f"{path.name}.csv"), lambda partial: table.to_csv(partial, index=False)
            ),
            *(replace_file(path.with_name(f"{path.name}.{kind}"), others) for kind in current().formats),
        ]
