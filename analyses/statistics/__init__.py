"""Streaming statistics; one file per statistic.

    statistic = statistics.load("step_similarity").Statistic()
    statistic.add(at, hook_name, value)        # for every firing
    statistic.result()                         # -> xarray.Dataset

A statistic is a file with `reads`, the patterns of the hook names that it watches, and a class `Statistic`.
"""

from framelens.records.registry import Registry

_STATISTICS = Registry(__name__, "statistic")
names, load = _STATISTICS.names, _STATISTICS.load
