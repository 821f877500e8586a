"""One measure of several runs: overlaid curves, and beside them how far each run differs from the first.

figure, table = draw(measure, compared)
"""

import textwrap

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from framelens.analyses.averages import summary
from framelens.analyses.depth import depth_of
from framelens.analyses.differences import mean_difference
from framelens.analyses.sample import per_film
from framelens.reports.comparison.compared import Compared, positions, share_places
from framelens.reports.comparison.measures import Measure
from framelens.reports.drawing import style
from framelens.reports.drawing.layers import mark
from framelens.reports.drawing.tables import tidy


@style.look
def draw(measure: Measure, compared: Compared) -> tuple[Figure, pd.DataFrame]:
    """The figure, and its numbers; runs that lack the measure are left out.

    Differences are drawn where the runs have the same layers or frames.
    """
    missing = compared.lacking(measure)
    looks = style.arms(compared.names)
    values = {
        name: measure.values(run).transpose("clip", ...)
        for name, run in zip(compared.names, compared.runs, strict=True)
        if name not in missing
    }
    are_shared = share_places(list(values.values()))
    has_differences = are_shared and len(values) > 1
    figure = style.canvas(height=2.9)
    panels = figure.subplots(1, 2, width_ratios=(3, 2)) if has_differences else [figure.subplots()]
    tables = []
    for name, each in values.items():
        drawn = summary(each, measure.scale)
        style.line(panels[0], positions(each, are_shared), drawn, name, **looks[name])
        tables.append(_rows(drawn, measure, "value", name))
    panels[0].set_ylabel(measure.unit)
    if has_differences:
        tables += _differences(panels[1], measure, values, looks, compared.share_clips)
    for axes in panels:
        _name_places(axes, measure, next(iter(values.values())), are_shared)
    if measure.is_ratio:
        for axes in panels:
            style.logarithmic(axes)
    handles, names = panels[0].get_legend_handles_labels()
    wrapped = [textwrap.fill(name, 42) for name in names]
    figure.legend(handles, wrapped, loc="outside lower left", ncols=min(len(names), 2))
    return figure, pd.concat(tables, ignore_index=True)


def _differences(
    axes: Axes, measure: Measure, values: dict[str, xr.DataArray], looks: dict, is_paired: bool
) -> list[pd.DataFrame]:
    (first, base), *others = values.items()
    tables = []
    for name, each in others:
        clips = min(base.sizes["clip"], each.sizes["clip"]) if is_paired else None
        pair = [per_film(part.isel(clip=slice(clips))) for part in (base, each)]
        found = mean_difference(pair[0].values, pair[1].values, measure.scale, is_paired)
        shape = each.isel(clip=0, drop=True)
        drawn = xr.Dataset({key: shape.copy(data=part) for key, part in found._asdict().items()})
        style.line(axes, positions(each, are_shared=True), drawn, name, **looks[name])
        tables.append(_rows(drawn, measure, f"against {first}", name))
    axes.axhline(1 if measure.is_ratio else 0, color="0.5", linewidth=0.8, zorder=0)
    what = "ratio to" if measure.is_ratio else "minus"
    axes.set_ylabel(textwrap.fill(f"{what} {first}", 34))
    axes.set_title("clip by clip" if is_paired else "different clips", loc="left")
    return tables


def _name_places(axes: Axes, measure: Measure, values: xr.DataArray, are_shared: bool) -> None:
    if measure.along == "frame":
        axes.set_xlabel("frame")
        axes.xaxis.get_major_locator().set_params(integer=True)
    elif are_shared:
        mark(axes, depth_of(values))
    else:
        axes.set_xlabel("depth (0 first layer, 1 last layer)")
        axes.set_xlim(-0.02, 1.02)


def _rows(drawn: xr.Dataset, measure: Measure, kind: str, name: str) -> pd.DataFrame:
    return tidy(drawn, measure=measure.name, kind=kind, run=name)


def words(table: pd.DataFrame, measure: Measure) -> list[str]:
    """For each run after the first: where it differs most from the first, as a sentence."""
    sentences = []
    against = table[table["kind"] != "value"]
    for (kind, name), rows in against.groupby(["kind", "run"], sort=False):
        level = 1 if measure.is_ratio else 0
        clear = rows[(rows["low"] > level) | (rows["high"] < level)]
        if rows["low"].isna().all():
            sentences.append(f"{name} {kind}: too few clips for an interval.")
            continue
        if clear.empty:
            sentences.append(f"{name} {kind}: no {measure.along} differs clearly.")
            continue
        size = np.abs(np.log(clear["mean"])) if measure.is_ratio else clear["mean"].abs()
        row = clear.loc[size.idxmax()]
        place = int(row[measure.along])
        where = "the embedding" if place < 0 else f"{measure.along} {place}"
        sign = "times" if measure.is_ratio else measure.unit.split(" (")[-1].rstrip(")")
        amount = f"{row['mean']:.2f}" if measure.is_ratio else f"{row['mean']:+.3g}"
        sentences.append(
            f"{name} {kind}: {len(clear)} of {len(rows)} {measure.along}s differ clearly, most {where} "
            f"({amount} {sign} [{row['low']:.3g}, {row['high']:.3g}])."
        )
    return sentences
