"""Experiments, one file each: which passes are run, with which instruments.

A file of this folder is an experiment. It must offer
- `measure(clip)`: the Datasets of one clip, by name
- `evaluations(run)`: the layer evaluations of `measure`, as a probes.run.costs.Evaluations, counted from the
  RunShape `run`; 0 for a model for which `measure` measures nothing

and may offer
- `kept_bytes(run)`: bytes that it needs besides the weights and the chunk that interventions share
- `conclude(datasets)`: results that need all clips together, added to the datasets of the run
"""

from framelens.records.registry import Registry

_EXPERIMENTS = Registry(__name__, "experiment")
names, load = _EXPERIMENTS.names, _EXPERIMENTS.load
