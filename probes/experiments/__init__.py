"""Experiments; one file per experiment: which passes are run, under which instruments.

An experiment is a file with `measure(subject)`, which returns the Datasets of one clip by name. It may also
have `conclude(datasets)`, for what only all clips together can show.
"""

from framelens.records.registry import Registry

_EXPERIMENTS = Registry(__name__, "experiment")
names, load = _EXPERIMENTS.names, _EXPERIMENTS.load
