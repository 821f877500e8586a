"""A planner's prediction for a split, read from the plan.json of a probe's run or of `probes plan`."""

import json
from dataclasses import dataclass
from pathlib import Path

from framelens.models.cost.operations import VALUE_BYTES


@dataclass(frozen=True)
class PlannerPrediction:
    """A split, the use for which it was planned, and the predicted speed-up."""

    file: str
    model: str
    """The model whose shapes are timed."""
    verdict: str
    encoder_layers: int
    decoder_layers: int
    fusion: str
    steps: int
    history: int
    tokens: int
    batch: int
    dtype: str
    speed_up: float
    """Predicted by operations."""
    clock_speed_up: float | None
    """Predicted by the measured rates of a machine; None if the planner had no rates."""
    threads: int | None
    """Threads of the CPU that was measured."""

    @property
    def split(self) -> tuple[int, int]:
        """Layers of encoder and decoder."""
        return self.encoder_layers, self.decoder_layers


def read_plan(file: Path) -> PlannerPrediction:
    """The plan in that file; FileNotFoundError or ValueError if there is none or it has no split."""
    if not file.exists():
        raise FileNotFoundError(
            f"plan {file} does not exist; make one: "
            "python -m framelens.probes plan --model X --steps T --history F"
        )
    try:
        plan = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not valid JSON ({error}); plan again") from None
    if not isinstance(plan, dict) or plan.get("kind") != "plan":
        raise ValueError(f"{file} is not a plan; give the plan.json of a probe's run")
    if not plan["architecture"]:
        raise ValueError(f"{file} has no split to time: {plan['model']['name']} is {plan['verdict']}")
    use, model = plan["prediction"], plan["model"]
    if not use:
        raise ValueError(f"{file} has no prediction: {model['name']} does not give enough of its shapes")
    clock = use["clock"] or {}
    return PlannerPrediction(
        file=str(file),
        model=model["name"],
        verdict=plan["verdict"],
        **{name: plan["architecture"][name] for name in ("encoder_layers", "decoder_layers", "fusion")},
        **{name: use[name] for name in ("steps", "history", "tokens", "batch", "speed_up")},
        dtype=next(dtype for dtype, size in VALUE_BYTES.items() if size == use["value_bytes"]),
        clock_speed_up=clock.get("speed_up"),
        threads=None if str(clock.get("device")).startswith("cuda") else clock.get("threads"),
    )
