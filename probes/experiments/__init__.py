"""Experiments; one file per experiment: which passes are run, under which instruments.

A file of this folder is an experiment. It must offer
- `measure(subject)`: the Datasets of one clip by name
- `evaluations(run)`: the layer evaluations of `measure`, as a probes.run.costs.Evaluations, counted from the
  RunShape `run` as `measure` loops; 0 where a model has nothing to measure

and may offer
- `kept_bytes(run)`: bytes that it holds beside the weights and the chunk that interventions share
- `conclude(datasets)`: what only all clips together can show, added to the datasets of the run
"""

from framelens.records.registry import Registry

_EXPERIMENTS = Registry(__name__, "experiment")
names, load = _EXPERIMENTS.names, _EXPERIMENTS.load
