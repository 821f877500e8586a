"""Streaming statistics; one file per statistic.

    statistic = statistics.new("step_similarity", settings)
    statistic.add(at, hook_name, value)        # for every value of a watched hook point
    statistic.result()                         # -> xarray.Dataset
    statistic.cost(shape)                      # -> analyses.cost.StatisticCost, without any value

A file of this folder is a statistic. It must offer
- `reads`: globs of the hook names whose values it reads, or "attention" for attention patterns
- `Statistic`: a class with `add(at, name, value)`, `result()`, and `cost(shape)`: what it computes and keeps

and may offer
- `for_run(settings)`: the statistic for the settings of a run; without it `Statistic()` is made
"""

from typing import Any

from framelens.records.registry import Registry

_STATISTICS = Registry(__name__, "statistic")
names, load = _STATISTICS.names, _STATISTICS.load


def new(name: str, settings: Any) -> Any:
    """A statistic of that name for a run with these settings."""
    module = load(name)
    return module.for_run(settings) if hasattr(module, "for_run") else module.Statistic()


def cost_of(name: str, settings: Any, shape: Any) -> Any:
    """What the statistic of that name costs in a run with these settings, a StatisticCost.

    `shape` is a WatchedShape. ValueError for a statistic that has no method `cost`.
    """
    statistic = new(name, settings)
    if not hasattr(statistic, "cost"):
        raise ValueError(
            f"the statistic {name} has no cost; give its class a method cost(shape) that "
            "returns a StatisticCost (framelens/analyses/cost.py)"
        )
    return statistic.cost(shape)
