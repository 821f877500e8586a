"""What a probe run was asked to do: checked before anything is loaded or written. Light: no torch."""

from collections.abc import Collection
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from framelens.analyses import statistics
from framelens.models.cost.shape import VALUE_BYTES
from framelens.probes import experiments
from framelens.records.checks import (
    CLIPS,
    FRAMES,
    GUIDANCE,
    MOST_FRAMES,
    POSITIVE,
    SEED,
    STEPS,
    Rule,
    at_least,
    check,
    each,
    one_of,
    optional,
    spell_as_flag,
)

if TYPE_CHECKING:  # it imports torch, which --help does without
    import framelens.diffusion.contract

MODES = ("teacher_forced", "free_running")
NETWORKS = ("trained", "random")
QUICK: dict[str, Any] = {"steps": 10, "probed": 2}
"""Defaults of a quick run."""
OF_THE_MODEL = ("steps", "shift", "renoise")
"""Settings whose default is the model's own sampling recipe."""
OWN_FILE = "own.safetensors"
"""The file of a run with samples of the model itself."""
OWN = "own"
"""As `videos`: the clips are samples of the model itself; "own:FILE" has them follow a file's prompts."""


@dataclass(frozen=True)
class Settings:
    """Everything that decides the numbers of a run, together with the model."""

    clips: int = 8
    """Held-out clips."""
    frames: int | None = None
    """Frames per clip; None for as many as the model was trained on."""
    context: int = 4
    """Frames given before a free run; the first probed frame is the one after them."""
    probed: int = 3
    """Frames at which features and attention are read, evenly from `context` to the last."""
    steps: int = 20
    """Denoising steps per frame."""
    shift: float = 1.0
    """Shift of the sigma grid."""
    renoise: bool = False
    """Whether each step predicts the clean frame and adds new noise to it, as few-step models are sampled."""
    levels: tuple[float, ...] | None = None
    """The model's own noise levels at the beginning of each step, from 1 down; None for an even grid under
    the shift."""
    guidance: float = 1.0
    """Scale of classifier-free guidance in rollouts and in the model's own samples, away from the negative
    prompt of a file or from the model's null condition; 1 for none."""
    queries: int = 64
    """Queries per frame whose attention is read; all of them where a frame has no more tokens."""
    tokens: int | None = None
    """Tokens of a chunk that similarity, noise invariance and the readout are measured on; None for all."""
    stats_steps: int | None = None
    """Denoising steps at which streaming statistics are taken, evenly with the first and the last; None for
    all."""
    experiments: tuple[str, ...] = ()
    """Files of probes/ with a measurement; empty for all."""
    statistics: tuple[str, ...] = ()
    """Streaming statistics; empty for all."""
    layers: tuple[int, int] | None = None
    """First and last layer that interventions reach for; None for all of the stack that denoises."""
    starts: tuple[int, ...] = ()
    """Steps whose features are reused from there on; empty for the first and each quarter of the way."""
    quick: bool = False
    """Interventions with fewer steps and noise levels, reuse at six layers or so, no single heads."""
    videos: str | None = None
    """A world of videos/, a video file or folder, a file of latents, "own" for samples of the model itself
    or "own:FILE" for those that follow a file's prompts; None for what the model was trained on, and its own
    samples where it does not say."""
    set: tuple[tuple[str, Any], ...] = ()
    """What the checkpoint does not store and the user gives, (name, value)."""
    seed: int = 0
    """Decides the clips, the noise and the random network."""
    device: str = "cpu"
    dtype: str = "float32"

    def __post_init__(self):
        check(self, RULES, spell_as_flag)

    @property
    def watched_steps(self) -> list[int]:
        """The denoising steps at which streaming statistics are taken."""
        count, last = min(self.stats_steps or self.steps, self.steps), self.steps - 1
        return sorted({round(index * last / max(1, count - 1)) for index in range(count)})

    @property
    def drawn_steps(self) -> int:
        """Denoising steps of a frame that is drawn under an intervention."""
        return min(self.steps, 5 if self.quick else 10)

    @property
    def start_steps(self) -> list[int]:
        """The steps whose features are reused."""
        if self.starts:
            return sorted(set(self.starts))
        quarters = (0, 2) if self.quick else (0, 1, 2, 3)
        last = max(0, self.drawn_steps - 2)
        return sorted({min(self.drawn_steps * quarter // 4, last) for quarter in quarters})

    def chosen_layers(self, depth: int) -> list[int]:
        """The layers that interventions reach for in a stack of that depth; ValueError for other layers."""
        first, last = self.layers or (0, depth - 1)
        if last >= depth:
            raise ValueError(
                f"--layers {first} {last} reaches beyond the {depth} layers that denoise; choose from 0 to "
                f"{depth - 1}"
            )
        stride = max(1, depth // 6) if self.quick else 1
        return sorted({*range(first, last + 1, stride), last})

    def of_model(
        self, model: "framelens.diffusion.contract.CausalDiffuser", unasked: Collection[str] = ()
    ) -> "Settings":
        """These settings with the model's own sampling recipe where no option was given.

        The context becomes whole chunks. The clips are the model's own samples where neither the settings nor
        the checkpoint name videos. The model's noise levels are kept unless another number of steps, or a
        shift, was requested. ValueError for more steps than a distilled model has.
        """
        from framelens.diffusion.choose_sampling import require_steps
        from framelens.diffusion.contract import traits

        declared, chunk = traits(model), model.geometry.frames_per_chunk
        own = declared.sampling
        opinion = {} if own is None else {"shift": own.shift, "renoise": own.renoise}
        if own is not None:
            opinion["steps"] = min(own.steps, QUICK["steps"]) if self.quick else own.steps
        changes: dict[str, Any] = {name: value for name, value in opinion.items() if name in unasked}
        if own is not None and "shift" in unasked:
            changes["levels"] = own.levels if changes.get("steps", self.steps) == own.steps else None
        require_steps(model, changes.get("steps", self.steps))
        changes["context"] = max(1, self.context // chunk) * chunk
        changes["videos"] = self.videos or (None if declared.source.metadata.get("videos") else OWN)
        return replace(self, **changes)

    def slug(self, model: "framelens.diffusion.contract.CausalDiffuser | None" = None) -> str:
        """A folder name for these settings: `default` or `quick`, and what differs from it for that model."""
        default = Settings(quick=True, **QUICK) if self.quick else Settings()
        default = default if model is None else default.of_model(model, OF_THE_MODEL)
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        differing = {name: value for name, value in values.items() if value != getattr(default, name)}
        if differing.keys() & {"steps", "shift"}:
            differing.pop("levels", None)  # which they decide
        parts = [f"{name}-{_spell(value)}".replace("/", "_") for name, value in differing.items()]
        return "_".join([*(["quick"] if self.quick else []), *parts]) or "default"

    def describe(self) -> dict:
        """The settings as plain values."""
        values = asdict(self) | {"set": dict(self.set)}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def _spell(value: Any) -> str:
    """A value as part of a folder's name: 2+4, height=60+width=104."""
    if not isinstance(value, tuple):
        return str(value)
    return "+".join("=".join(map(str, part)) if isinstance(part, tuple) else str(part) for part in value)


def _exceeds_context(frames: int, settings: Settings) -> bool:
    return settings.context < frames <= MOST_FRAMES


def _leaves_a_step(start: int, settings: Settings) -> bool:
    return 0 <= start < settings.drawn_steps - 1


RULES: dict[str, Rule] = {
    "clips": CLIPS,
    "probed": FRAMES,
    "steps": STEPS,
    "context": FRAMES,
    "queries": at_least(2),
    "seed": SEED,
    "tokens": optional(at_least(8)),
    "stats_steps": optional(at_least(2)),
    "dtype": one_of("dtype", lambda: VALUE_BYTES),
    "shift": POSITIVE,
    "guidance": GUIDANCE,
    "frames": optional(
        Rule(
            _exceeds_context,
            lambda name, frames, settings: (
                f"{name} must be at most {MOST_FRAMES}, got {frames}"
                if frames > MOST_FRAMES
                else f"{name} must exceed --context {settings.context}, got {frames}: nothing is left to draw"
            ),
        )
    ),
    "experiments": each(one_of("experiment", experiments.names)),
    "layers": optional(
        Rule(
            lambda layers, _: 0 <= layers[0] <= layers[1],
            lambda name, layers, _: (
                f"{name} {layers[0]} {layers[1]} is an empty range; give the first and the last layer, "
                "counted from 0"
            ),
        )
    ),
    "starts": each(
        Rule(
            _leaves_a_step,
            lambda name, start, settings: (
                f"{name} {start} leaves no later step: interventions draw a frame in "
                f"{settings.drawn_steps} steps; choose from 0 to {settings.drawn_steps - 2}"
            ),
        )
    ),
    "statistics": each(one_of("statistic", statistics.names)),
}
"""What each setting must meet, in the order in which they are checked."""


def refuse_path(run: str) -> None:
    """ValueError for a run's name that would lead out of its model's folder."""
    if run in ("", ".", "..") or "/" in run or "\\" in run:
        raise ValueError(f"--run is the name of one folder, got {run!r}; --out gives the folder of all runs")
