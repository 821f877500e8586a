"""A plan: the verdict on a run, with its evidence, the split and what it would save.

write_plan(folder, model)                        # plan.json in a complete run's folder
found = plan(folder, model.config, Use(steps=50, history=144))
scd.config(preset, **found.architecture)
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from framelens.analyses.decision.engine import Answer
from framelens.analyses.decision.kept import THRESHOLD, summary
from framelens.analyses.decision.split import (
    DATASETS,
    NEWER,
    SUPPORTING,
    Split,
    Sweep,
    dispensable,
    split,
)
from framelens.analyses.decision.verdict import DECISION
from framelens.analyses.sample import sample_of_films
from framelens.diffusion.contract import CausalDiffuser
from framelens.models.cost.operations import Shape
from framelens.probes.plan.next_step import acting
from framelens.probes.plan.prediction import (
    Clock,
    Use,
    architecture,
    describe,
    lacking,
    of_shapes,
    predict,
    shape_in_use,
)
from framelens.records import now, read_netcdf
from framelens.records.manifest import FILE as MANIFEST
from framelens.records.manifest import ProbeManifest
from framelens.records.plan import FILE, Plan
from framelens.records.typed import build

Clocks = Callable[[Shape], Clock]
"""Gives the rates at which a network of that shape is predicted."""


def write_plan(folder: Path, model: CausalDiffuser) -> Path | None:
    """The plan of a complete run for its own steps and frames, in its folder; None without cuts.

    Rates are measured on the run's device, so nothing else should run at that time. A plan that the plan
    command made with options is left as it is.
    """
    if not (folder / "cut.nc").exists():
        return None
    if _is_of_a_command(folder / FILE):
        return folder / FILE
    manifest = ProbeManifest.read(folder / MANIFEST)
    settings, chunk = manifest.settings, manifest.model.geometry["frames_per_chunk"]
    use = Use(settings["steps"], max(1, settings["frames"] - chunk), dtype=settings["dtype"])
    clocks = partial(Clock.now, settings["device"], use.dtype)
    return plan(folder, describe(model), use, clocks).write(folder / FILE)


def _is_of_a_command(file: Path) -> bool:
    """Whether the plan command made that file; False for a file that cannot be read."""
    try:
        return bool(Plan.read(file).command)
    except (FileNotFoundError, ValueError):
        return False


def plan(folder: Path, config: Any, use: Use, clocks: Clocks | None = None, file: Path | None = None) -> Plan:
    """The plan of a complete run; `config` describes the model and may be None.

    The prediction counts frames that are generated together as one; without clocks, it uses operations alone.
    `file` is where the plan will be stored; the default is the run's folder.
    """
    from framelens.models.parts.fusion import FUSIONS

    if use.fusion not in (None, *FUSIONS):
        raise ValueError(f"no fusion is called {use.fusion!r}; there are {', '.join(FUSIONS)}")
    manifest = ProbeManifest.read(folder / MANIFEST)
    model, settings = manifest.model, manifest.settings
    sample = sample_of_films(settings["clips"], manifest.clip_films, manifest.control_films)
    geometry = model.geometry
    chunk = geometry["frames_per_chunk"]
    use = replace(use, history=max(1, use.history // chunk))
    shown = {"name": model.name, "network": model.network, "layers": geometry["layers"]}
    found = {
        "created": now(),
        "command": "",
        "model": shown | {"tokens_per_frame": geometry["tokens_per_frame"], "frames_per_chunk": chunk},
        "run": {
            "folder": str(folder),
            "clips": settings["clips"],
            "quick": settings["quick"],
            "films": sample.films,
            "is_one_film": sample.is_one_film,
        },
        "decision": DECISION,
    }
    if hasattr(config, "encoder_layers"):
        return build(Plan, _plain(found | _separated_already(config, geometry, use, clocks)))
    data = {
        name: read_netcdf(folder / f"{name}.nc")
        for name in (*DATASETS, *NEWER, *SUPPORTING)
        if (folder / f"{name}.nc").exists()
    }
    answer = split(data, geometry["layers"])
    built = prediction = None
    remarks = list(answer.remarks)
    how = None
    if answer.cut is not None:
        built = architecture(answer.cut, use.fusion)
        how = acting(manifest, config, answer.cut, built, file or folder / FILE)
        if not lacking(config):
            shape = shape_in_use(config, geometry, use)
            clock = _clock(clocks, shape, remarks)
            prediction = predict(shape, answer.cut, answer.curves, use, built["fusion"], clock)
    if built is not None and lacking(config):
        missing = ", ".join(lacking(config))
        remarks.append(f"What a split would save is not predicted: the model's description has no {missing}.")
    evidence = _evidence(answer) | {"remarks": remarks}
    made = {"architecture": built, "acting": how, "prediction": prediction}
    return build(Plan, _plain(found | evidence | made))


def _clock(clocks: Clocks | None, shape: Shape, remarks: list[str]) -> Clock | None:
    """The rates for that shape; none, with a remark, where the device has no memory left to measure them."""
    from torch import OutOfMemoryError

    try:
        return None if clocks is None else clocks(shape)
    except OutOfMemoryError:
        remarks.append(
            "The speed-up is predicted by operations alone: measuring rates needs more memory than is free."
        )
        return None


def _separated_already(config: Any, geometry: dict, use: Use, clocks: Clocks | None) -> dict[str, Any]:
    layers = {"encoder_layers": config.encoder_layers, "decoder_layers": config.decoder_layers}
    own = shape_in_use(config, geometry, use)
    none = {"encoder_layers": 0, "fusion": None, "start_token": False, "query": "past"}
    dense = replace(own, layers=sum(layers.values()), **none)
    asking = ("query", "query_layer", "start_token") if own.asks else ()
    joined = ("fusion", *(("head",) if config.fusion == "residual" else ()), *asking)
    remarks = ["By construction; compared with a dense model with the same number of layers."]
    clock = _clock(clocks, dense, remarks)
    return {
        "verdict": "separable",
        "reason": f"It is already separated: its encoder of {config.encoder_layers} layers never sees the "
        f"noisy frame, and its decoder of {config.decoder_layers} only the encoder's output for it.",
        "would_decide": "",
        "tests": [],
        "remarks": remarks,
        "split": None,
        "architecture": layers | {name: getattr(config, name) for name in joined},
        "acting": None,
        "sweep": None,
        "curves": {},
        "prediction": of_shapes(dense, own, use, clock) | {"nearby": []},
    }


def _evidence(answer: Split) -> dict[str, Any]:
    cut, placed = answer.cut, None
    if cut is not None:
        placed = {"encoder_layers": cut.encoder_layers, "head": cut.head, "tail": cut.tail}
        placed |= {"decoder": cut.decoder, "threshold": THRESHOLD}
        placed |= {"is_provisional": answer.verdict == "open"}
        placed |= {"dispensable": dispensable(answer.curves, cut)}
    return {
        "verdict": answer.verdict,
        "reason": answer.reason,
        "would_decide": answer.would_decide,
        "tests": [_test(test) for test in answer.tests],
        "split": placed,
        "sweep": None if answer.sweep is None else _sweep(answer.sweep),
        "curves": {} if answer.sweep is None else _curves(answer),
    }


def _test(test: Answer) -> dict[str, Any]:
    question = test.question
    about = {"name": test.name, "question": question.ask, "measured": test.measured, "beside": test.beside}
    numbers = {"value": test.value, "low": test.low, "high": test.high, "threshold": test.threshold}
    words = {"side": question.side, "asked": test.asked, "because": question.because}
    words |= {"failing": question.failing}
    return about | numbers | words | {"passed": test.passed, "kind": question.kind}


def _sweep(sweep: Sweep) -> dict[str, Any]:
    """By threshold; a depth of layers + 1 means that no depth is enough."""

    def at(values: list, name: str) -> list:
        return [None if value is None else float(getattr(value, name)) for value in values]

    return {
        "threshold": sweep.thresholds,
        "encoder_layers": at(sweep.depths, "mean"),
        "low": at(sweep.depths, "low"),
        "high": at(sweep.depths, "high"),
        "live": at(sweep.live, "mean"),
        "decoder": sweep.decoders,
        "spread": sweep.spread,
        "tracks_threshold": sweep.tracks_threshold,
        "said": sweep.sentence,
    }


def _curves(answer: Split) -> dict[str, Any]:
    depth, layers = {}, {}
    for name in ("once", "live"):
        measured = getattr(answer.curves, name)
        if measured is not None:
            depth[name] = {"depth": measured[0]} | {m: _interval(rows) for m, rows in measured[1].items()}
    if answer.curves.work is not None:
        at, work = answer.curves.work
        layers = {"layer": at} | {name: _interval(rows) for name, rows in work.items()}
    return {name: curve for name, curve in (("depth", depth), ("layers", layers)) if curve}


def _interval(rows: np.ndarray) -> dict[str, np.ndarray]:
    return dict(summary(rows)._asdict())


def _plain(value: Any) -> Any:
    """The same without arrays and NaN, as JSON has neither."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
