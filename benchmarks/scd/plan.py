"""A planner's prediction for a split, read from the plan.json of a probe's run or of `probes plan`."""

from dataclasses import dataclass
from pathlib import Path

from framelens.models.cost.operations import VALUE_BYTES
from framelens.records.plan import Plan


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
    plan = Plan.read(file)
    built, use = plan.architecture, plan.prediction
    if built is None:
        raise ValueError(f"{file} has no split to time: {plan.model.name} is {plan.verdict}")
    if use is None:
        raise ValueError(f"{file} has no prediction: {plan.model.name} does not give enough of its shapes")
    clock = use.clock
    return PlannerPrediction(
        file=str(file),
        model=plan.model.name,
        verdict=plan.verdict,
        encoder_layers=built["encoder_layers"],
        decoder_layers=built["decoder_layers"],
        fusion=built["fusion"],
        steps=use.steps,
        history=use.history,
        tokens=use.tokens,
        batch=use.batch,
        speed_up=use.speed_up,
        dtype=next(dtype for dtype, size in VALUE_BYTES.items() if size == use.value_bytes),
        clock_speed_up=None if clock is None else clock.speed_up,
        threads=None if clock is None or clock.device.startswith("cuda") else clock.threads,
    )
