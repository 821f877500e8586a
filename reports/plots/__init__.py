"""Figures; one file per figure.

    from framelens.reports import plots
    from framelens.reports.runs import open_run

    run = open_run("runs/dense-tiles/default")
    figure, table = plots.load("depth").draw(run)

A figure file has `draw(run) -> (Figure, DataFrame)`, `needs` (the datasets it
reads), `order` (its place on the page), `title`, `caption` and `words(table)`
(its numbers as sentences); `is_for_some` where only some models can have what
it shows, so that the page does not name it where it is absent.
"""

from framelens.records.registry import Registry

_PLOTS = Registry(__name__, "figure")
names, load = _PLOTS.names, _PLOTS.load
