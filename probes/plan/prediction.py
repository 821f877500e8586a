"""The predicted saving of a split for a use: by operations and by measured rates.

use = Use(steps=50, history=144, tokens=None)
predict(dense_shape, answer.cut, answer.curves, use, Clock.now("cpu", "float32", dense_shape))
"""

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from framelens.analyses.decision.curves import Curves, Cut
from framelens.analyses.decision.kept import THRESHOLD
from framelens.diffusion.contract import CausalDiffuser, traits
from framelens.models.cost.machine import Machine
from framelens.models.cost.operations import (
    VALUE_BYTES,
    Shape,
    cache_bytes,
    frame_cost,
    parameters,
    predicted_speed_up,
    shape_of,
    speed_up_bound,
)
from framelens.records import now
from framelens.records.manifest import FILE, BenchManifest

MOST_COUNT = 1_000_000_000
NEARBY = range(-2, 4)
"""The changes of the encoder's depth that are compared."""


@dataclass(frozen=True)
class Use:
    """How the model will be used. ValueError unless all counts are from 1 to MOST_COUNT."""

    steps: int
    """Denoising steps per frame."""
    history: int
    """Frames before the one that is generated."""
    tokens: int | None = None
    """Tokens per frame; None for the model's own."""
    batch: int = 1
    dtype: str = "float32"
    fusion: str | None = None
    """How the decoder receives features; None for residual where layers remain between its own."""

    def __post_init__(self):
        for name in ("steps", "history", "tokens", "batch"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MOST_COUNT:
                raise ValueError(f"--{name} must be from 1 to {MOST_COUNT}, got {value}")


COUNTED = "channels height width patch heads d_model mlp_width conditions text_tokens text_width window sink"
"""The fields of a model's description that the arithmetic needs."""


def describe(model: CausalDiffuser) -> Any:
    """The model's description, from which costs are counted; None for a model that has none."""
    known = traits(model)
    if known.config is not None and not lacking(known.config):
        return known.config
    return None if known.describe is None else SimpleNamespace(**known.describe())


def lacking(config: Any) -> list[str]:
    """The COUNTED fields that a description lacks."""
    if config is None:
        return []
    layers = [] if hasattr(config, "layers") or hasattr(config, "decoder_layers") else ["layers"]
    return layers + [name for name in COUNTED.split() if not hasattr(config, name)]


def shape_in_use(config: Any, geometry: dict[str, Any], use: Use) -> Shape:
    """The shape of the model as it is, for that use; from the geometry alone without a config.

    Frames that are generated together count as one.
    """
    if config is None:
        defaults = {"mlp_width": None, "conditions": 0, "text_tokens": 0, "text_width": 0, "window": None}
        config = SimpleNamespace(**{**defaults, "sink": 0, **geometry})
    changes = {"batch": use.batch, "value_bytes": VALUE_BYTES[use.dtype]}
    shape = shape_of(config, **changes | ({} if use.tokens is None else {"tokens": use.tokens}))
    chunk = geometry.get("frames_per_chunk", 1)
    window = None if shape.window is None else max(1, shape.window // chunk)
    return replace(shape, tokens=chunk * shape.tokens, window=window, sink=-(-shape.sink // chunk))


def separated_shape(dense: Shape, encoder_layers: int, decoder_layers: int, fusion: str) -> Shape:
    """The shape of its separated twin."""
    asks = fusion == "residual"
    layers = {"layers": decoder_layers, "encoder_layers": encoder_layers}
    return replace(dense, **layers, fusion=fusion, query="noise" if asks else "past", start_token=not asks)


def architecture(cut: Cut, fusion: str | None) -> dict[str, Any]:
    """The settings with which models/scd.py builds that split; ValueError where the fusion does not fit."""
    from framelens.models.parts.scd_config import ASKING

    layers = {"encoder_layers": cut.encoder_layers, "decoder_layers": len(cut.decoder)}
    fits = len(cut.head) < cut.encoder_layers
    if fusion == "residual" and not fits:
        raise ValueError(
            f"the first {len(cut.head)} layers run at every step and the encoder has no more, so no layer "
            "is left for a residual; choose another --fusion, such as prefix"
        )
    if fusion == "residual" or (fusion is None and fits):
        return layers | {"fusion": "residual", "head": len(cut.head)} | ASKING
    return layers | {"fusion": fusion or "prefix"}


def predict(
    dense: Shape, cut: Cut, curves: Curves, use: Use, fusion: str, clock: "Clock | None"
) -> dict[str, Any]:
    """Speed-up, cache and parameters of the split, and of nearby ones."""
    chosen = separated_shape(dense, cut.encoder_layers, len(cut.decoder), fusion)
    nearby = []
    for depth in (cut.encoder_layers + change for change in NEARBY):
        other = curves.cut_at(depth, THRESHOLD)
        if other is not None:
            layers = len(other.decoder)
            row = of_shapes(dense, separated_shape(dense, depth, layers, fusion), use, clock)
            named = {name: row[name] for name in ("speed_up", "cache_bytes", "parameters")}
            named |= {"clock_speed_up": row["clock"] and row["clock"]["speed_up"]}
            at = {"encoder_layers": depth, "decoder_layers": layers, "chosen": depth == cut.encoder_layers}
            nearby.append(at | named | {"kept": _summarise_kept(curves, depth)})
    once = replace(dense, past_layers=cut.encoder_layers)
    fetched = predicted_speed_up(dense, once, use.steps, use.history)
    return of_shapes(dense, chosen, use, clock) | {"nearby": nearby, "fetched_once": fetched}


def of_shapes(dense: Shape, separated: Shape, use: Use, clock: "Clock | None") -> dict[str, Any]:
    """Speed-up by operations and by the clock, bound, cache, operations and parameters of two shapes."""
    place = (use.steps, use.history)
    return {
        "steps": use.steps,
        "history": use.history,
        "tokens": dense.tokens,
        "batch": dense.batch,
        "value_bytes": dense.value_bytes,
        "fusion": separated.fusion,
        "speed_up": predicted_speed_up(dense, separated, *place),
        "bound": speed_up_bound(dense, separated, use.history),
        "cache_bytes": cache_bytes(separated, use.history),
        "dense_cache_bytes": cache_bytes(dense, use.history),
        "frame_flops": frame_cost(separated, *place).flops,
        "dense_frame_flops": frame_cost(dense, *place).flops,
        "parameters": parameters(separated),
        "dense_parameters": parameters(dense),
        "clock": None if clock is None else clock.predict(dense, separated, use),
    }


def _summarise_kept(curves: Curves, depth: int) -> dict[str, float] | None:
    """The kept share at that encoder depth, of the worse measure; None where it was not measured."""
    value = curves.kept_once(depth)
    return None if value is None else {name: float(end) for name, end in value._asdict().items()}


@dataclass(frozen=True)
class Clock:
    """A machine's measured rates: where, in which dtype, with how many threads of a CPU, and when."""

    device_name: str
    device: str
    dtype: str
    threads: int
    measured: str
    machine: Machine

    @classmethod
    def now(cls, device: str, dtype: str, shape: Shape) -> "Clock":
        """The rates of this machine with blocks of that shape; raises torch.OutOfMemoryError."""
        import torch

        from framelens.models.cost.calibration import calibrate
        from framelens.models.loading.devices import device_name, first_device

        device = first_device(device)
        machine = calibrate(device, dtype, shape)
        return cls(device_name(device), device, dtype, torch.get_num_threads(), now(), machine)

    @classmethod
    def read(cls, folder: Path) -> "Clock":
        """From a benchmark's folder; FileNotFoundError or ValueError if it is not one."""
        manifest = BenchManifest.read(folder / FILE)
        machine, settings = manifest.machine, manifest.settings
        rates, where = [field.name for field in fields(Machine)], ["device", "dtype", "threads"]
        missing = [name for name in rates if name not in machine]
        missing += [name for name in where if settings.get(name) is None]
        if missing:
            raise ValueError(
                f"{folder} does not store its {', '.join(missing)}; make it again: {manifest.command}"
            )
        return cls(
            machine["device_name"],
            **{name: settings[name] for name in where},
            measured=manifest.created,
            machine=Machine(**{name: machine[name] for name in rates}),
        )

    def predict(self, dense: Shape, separated: Shape, use: Use) -> dict[str, Any]:
        """Seconds per frame of both, their ratio, and by which rates."""
        ours, theirs = (
            self.machine.frame_seconds(shape, use.steps, use.history) for shape in (separated, dense)
        )
        seconds = {"speed_up": theirs / ours, "frame_seconds": ours, "dense_frame_seconds": theirs}
        return seconds | {**asdict(self), "machine": asdict(self.machine)}
