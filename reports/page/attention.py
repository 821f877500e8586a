"""Where a patch of the generated frame looks: a part of the page in which a reader chooses it.

    parts = attention_section(run)      # pieces of HTML; empty where the run has no attention_rows

A value is one sign of BASE64: the logarithm of attention over uniform attention, in equal steps from LOWEST
to all of the attention on one key, or NONE for a key that is not in view.
"""

import base64
import io
from typing import Any

import numpy as np
import seaborn
import xarray as xr
from PIL import Image

from framelens.analyses.depth import depth_of
from framelens.reports.drawing import colours
from framelens.reports.page.film import to_pixels
from framelens.reports.page.markup import Html, fill, join, numbers, own_file
from framelens.reports.plots.samples import pictures, read_samples
from framelens.reports.runs import Run

ROWS = "attention_rows"
MOST_SIGNS = 2_000_000
"""Signs of the page for values; of a run with more there are fewer clips, steps and layers."""
BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
LEVELS, NONE = 63, 63
LOWEST = -3.0
"""log2 of the least attention over uniform attention that has a sign of its own: an eighth."""
BRIGHTEST = 3.0
"""log2 of what has the strongest colour: 8 times uniform attention."""
SHADES = 33
WIDEST = 160
"""Pixels: larger frames are reduced to that."""
CONTROLS = {"clip": "Clip", "step": "Step", "layer": "Layer", "head": "Head"}
ABOUT = (
    "Choose a patch of the generated frame with the pointer or the arrow keys. The maps show the attention "
    "of this patch to each patch of each earlier frame, over that of uniform attention: white is as much, "
    "red is more, blue is less, grey has no key in view."
)
MORE = (
    "Point at a map for its numbers. The passes are those of the trained network after true frames, which "
    "are shown without colours beneath the maps."
)


def attention_section(run: Run) -> list[Html]:
    """The section with its numbers and its script, without which it stays hidden."""
    if not run.path(ROWS).exists():
        return []
    rows = run.read(ROWS)
    kept = choose_rows(rows)
    if kept is None:
        size = f"{rows.mass[0, 0, 0].size:,}"
        return [
            fill(
                '<section id="attention">\n<h2>Attention to earlier frames</h2>\n<p>Each layer has {} '
                "values, too many for this page; {}.nc has them.</p>\n</section>",
                size, ROWS,
            )
        ]  # fmt: skip
    data = _names(rows, kept, run.geometry) | _values(kept) | {"pictures": _pictures(run, kept)}
    return [
        fill('<section id="attention" hidden>\n<h2>Attention to earlier frames</h2>'),
        fill('<p class="quiet">{}{}</p>', ABOUT, _left_out(rows, kept)),
        fill("<details><summary>how to read the maps</summary><p>{}</p></details>", MORE),
        *_controls(data["palette"]),
        fill(
            '<div class="attention"><figure class="query"><figcaption>generated: frame {}</figcaption>'
            '<div class="patches"><canvas id="attention-query" tabindex="0" role="img"></canvas></div>'
            '</figure><div id="attention-maps" tabindex="0" role="group" '
            'aria-label="Attention to earlier frames"></div></div>',
            data["drawn"],
        ),
        fill('<p class="readout" id="attention-patch" aria-live="polite"></p>'),
        fill('<p class="readout" id="attention-key" aria-live="polite"></p>'),
        numbers("attention-numbers", data),
        fill("<script>\n{}</script>\n</section>", own_file("attention.js")),
    ]


def choose_rows(rows: xr.Dataset) -> xr.Dataset | None:
    """The rows that the page has room for: of fewer clips, then steps, then layers; None where one layer of
    one step has too many."""
    one = rows.mass[0, 0, 0].size
    clips, steps, layers = (list(range(rows.sizes[dim])) for dim in ("clip", "step", "layer"))
    ends = sorted({0, steps[-1]})
    for clip, step in [(clips, steps), (clips[:1], steps), (clips[:1], ends), (clips[:1], steps[:1])]:
        if one * len(clip) * len(step) * len(layers) <= MOST_SIGNS:
            return rows.isel(clip=clip, step=step)
    count = MOST_SIGNS // one
    return rows.isel(clip=[0], step=[0], layer=depth_of(rows).pick(count)) if count else None


def _left_out(rows: xr.Dataset, kept: xr.Dataset) -> str:
    """What of the file the page does not have."""
    less = [
        f"{kept.sizes[dim]} of {rows.sizes[dim]} {dim}s"
        for dim in ("clip", "step", "layer")
        if kept.sizes[dim] < rows.sizes[dim]
    ]
    return f" The page is kept small and has {', '.join(less)}; {ROWS}.nc has all." if less else ""


def _controls(palette: list[str]) -> list[Html]:
    """What can be chosen, and what the colours mean."""
    selects = (
        fill('<label>{} <select id="attention-{}"></select></label>', label, what)
        for what, label in CONTROLS.items()
    )
    box = fill('<label><input type="checkbox" id="attention-frames" checked> frames beneath</label>')
    return [
        fill('<p class="controls">{}\n{}</p>', join(selects), box),
        fill(
            '<p class="scale"><span>⅛</span><i style="background:linear-gradient(90deg,{})"></i>'
            "<span>8</span> times uniform attention</p>",
            ",".join(palette),
        ),
    ]


def _names(rows: xr.Dataset, kept: xr.Dataset, geometry: dict) -> dict[str, Any]:
    """What the axes are, and how patches lie in a frame."""
    tokens, whole = kept.sizes["token"], depth_of(rows)
    names = {point: whole.name(place) for place, point in enumerate(rows.point.values)}
    columns = geometry["width"] // geometry["patch"]
    columns = columns if columns and tokens % columns == 0 else tokens
    first, frames = int(rows.attrs["query_frame"]), kept.sizes["query"] // tokens
    return {
        "clip": [str(int(clip)) for clip in kept["clip"].values],
        "step": [f"{int(step)} (sigma {float(kept.sigma.sel(step=step)):.3g})" for step in kept.step.values],
        "layer": [names[point] for point in kept.point.values],
        "head": ["mean of heads", *(str(head) for head in range(kept.sizes["head"]))],
        "heads": kept.sizes["head"],
        "queries": kept.sizes["query"],
        "frames": [int(frame) for frame in kept.frame.values],
        "drawn": str(first) if frames == 1 else f"{first} to {first + frames - 1}",
        "rows": tokens // columns,
        "columns": columns,
    }


def _values(kept: xr.Dataset) -> dict[str, Any]:
    """Attention of each key as signs, that of each frame in thousandths (-1: it has no keys), and colours."""
    mass = kept.mass.transpose("clip", "step", "layer", "head", "query", "frame", "token")
    own = kept.own_mass.transpose(*mass.dims[:5]).values[..., None]
    by_frame = np.concatenate([mass.sum("token", min_count=1).values, own], -1)
    shares = np.where(np.isnan(by_frame), -1, np.round(1000 * np.nan_to_num(by_frame))).astype(int)
    highest = float(np.log2(kept["keys"].max()))
    ratio = (mass * kept["keys"]).transpose(*mass.dims).values
    table = np.frombuffer(BASE64.encode("ascii"), np.uint8)[to_signs(ratio, highest)]
    palette = seaborn.color_palette(colours.DIVERGING, SHADES)
    return {
        "keys": [int(number) for number in kept["keys"].values],
        "low": LOWEST,
        "width": (highest - LOWEST) / (LEVELS - 1),
        "brightest": BRIGHTEST,
        "palette": ["#" + "".join(f"{round(255 * part):02x}" for part in colour) for colour in palette],
        "values": [[[layer.tobytes().decode("ascii") for layer in step] for step in clip] for clip in table],
        "shares": shares.reshape(*shares.shape[:3], -1).tolist(),
    }


def to_signs(ratio: np.ndarray, highest: float) -> np.ndarray:
    """The place in BASE64 of the sign of each value of attention over uniform attention, in the same shape.

    `highest` is log2 of the largest value that there can be.
    """
    with np.errstate(divide="ignore"):
        level = np.rint((np.log2(ratio) - LOWEST) / (highest - LOWEST) * (LEVELS - 1))
    level = np.nan_to_num(level, nan=NONE, neginf=0)
    return np.where(np.isnan(ratio), NONE, np.clip(level, 0, LEVELS - 1)).astype(np.uint8)


def _pictures(run: Run, kept: xr.Dataset) -> list[dict[str, list[str]]]:
    """The earlier frames of each clip, which are true, and those generated; empty without samples."""
    if run.missing(("samples",)):
        return []
    by_mode, previews = read_samples(run)
    first = int(kept.attrs["query_frame"])
    drawn = range(first, first + kept.sizes["query"] // kept.sizes["token"])
    found = []
    for clip in kept["clip"].values:
        films = pictures(by_mode, previews, int(clip))
        true, made = (to_pixels(films[name]) for name in ("truth", "teacher_forced"))
        found.append(
            {
                "past": [_picture(Image.fromarray(true[frame]).convert("L")) for frame in kept.frame.values],
                "drawn": [_picture(Image.fromarray(made[frame])) for frame in drawn],
            }
        )
    return found


def _picture(picture: Image.Image) -> str:
    """The picture as a style sheet names it, with its pixels inside."""
    is_small = max(picture.size) <= WIDEST
    picture.thumbnail((WIDEST, WIDEST))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=is_small, quality=80)
    return f"url(data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')})"
