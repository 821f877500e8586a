"""How many blocks a run evaluates per clip, by experiment: arithmetic on counts, as the experiments loop.

    run = Run(layers=30, encoding_layers=30, heads=12, chunks=21, chunk=1, tokens=1560, settings=settings)
    evaluations(run)["reuse"]                # blocks run, times rows of the batch

Of a model that takes its past in by attention and lets its layers be passed over, as most do.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from framelens.probes import experiments
from framelens.probes.chunk.stage import DRAWS, ROWS, TOKENS
from framelens.probes.experiments import mask_drift
from framelens.probes.experiments.cut import QUICK, WHERE
from framelens.probes.experiments.noise_invariance import SIGMAS
from framelens.probes.experiments.reuse_refresh import EVERY
from framelens.probes.experiments.skip import KEPT, spans
from framelens.probes.run.settings import NETWORKS, Settings
from framelens.probes.run.subject import LEVELS, probed_frames

NETWORK_COUNT = len(NETWORKS)


@dataclass(frozen=True)
class Run:
    """What decides how much a run evaluates and holds, of one clip."""

    layers: int
    """That denoise."""
    encoding_layers: int
    """That take finished frames into memory."""
    heads: int
    chunks: int
    chunk: int
    """Frames made together."""
    tokens: int
    """Of a chunk."""
    settings: Settings
    is_bidirectional: bool = False
    """Whether it also makes a whole clip in one pass, which mask_drift is about."""

    @property
    def reached(self) -> list[int]:
        """The layers that interventions reach for."""
        return self.settings.chosen_layers(self.layers)

    @property
    def every(self) -> list[int]:
        """All layers between the first and the last of them."""
        return list(range(self.reached[0], self.reached[-1] + 1))

    @property
    def steps(self) -> int:
        """Of a chunk that is drawn under an intervention."""
        return self.settings.drawn_steps

    @property
    def batch(self) -> int:
        """Conditions per batch (probes/chunk/stage.py)."""
        return max(1, min(ROWS, TOKENS // self.tokens) // DRAWS)

    @property
    def probed(self) -> int:
        """Chunks at which features and attention are read."""
        return len(probed_frames(self.settings, self.chunks * self.chunk, self.chunk))

    @property
    def drawn(self) -> int:
        """Chunks behind the context."""
        return self.chunks - self.settings.context // self.chunk

    @property
    def branches(self) -> int:
        """Passes that guidance makes of each step of a rollout."""
        return 1 if self.settings.guidance == 1 else 2

    def rows(self, conditions: int) -> int:
        """Rows of all batches that so many conditions take; the last one is filled up."""
        return ceil(conditions / self.batch) * self.batch * DRAWS


def evaluations(run: Run) -> dict[str, int]:
    """Blocks run times rows by experiment of the run, and `memory`: finished frames that are taken in.

    The first pass of what experiments share (`stage`) is counted once. An experiment that this file does not
    know is left out: `uncounted` names it.
    """
    wanted = run.settings.experiments or experiments.names()
    found = {name: COUNTED[name](run) for name in wanted if name in COUNTED}
    if set(found) & set(STAGED):
        found["stage"] = _stage(run, wanted)
    found["memory"] = _memory(run, wanted)
    return found


def uncounted(run: Run) -> list[str]:
    """The experiments whose evaluations are not known."""
    return [name for name in run.settings.experiments or experiments.names() if name not in COUNTED]


def _stage(run: Run, wanted: list[str] | tuple[str, ...]) -> int:
    """The plain chunk and velocities of each network, and features at the steps they are taken from."""
    staged = [name for name in wanted if name in STAGED]
    networks = NETWORK_COUNT if {"cut", "leave_one_out"} & set(staged) else 1
    plain = networks * run.steps + LEVELS * (networks if set(staged) - {"controls"} else 0)
    steps = {0} if "controls" in staged else set()
    steps |= set(run.settings.start_steps) | {0} if "reuse" in staged else set()
    other = bool({"controls", "reuse_controls"} & set(staged))
    return DRAWS * run.layers * (plain + len(steps) + other)


def _memory(run: Run, wanted: list[str] | tuple[str, ...]) -> int:
    """Blocks of the layers that read finished chunks."""
    chunks = run.chunks - 1
    rollouts = NETWORK_COUNT * 2 * chunks * run.branches if "rollouts" in wanted else 0
    invariance = NETWORK_COUNT * 2 * chunks if "noise_invariance" in wanted else 0
    readout = NETWORK_COUNT * chunks if "readout" in wanted else 0
    staged = set(wanted) & set(STAGED)
    sizes = {DRAWS, 2 * DRAWS, run.batch * DRAWS}
    own = (1 if run.batch == 1 else sum(sizes)) * (2 if {"cut", "leave_one_out"} & staged else 1)
    other = (1 if run.batch == 1 else DRAWS) if {"controls", "reuse_controls"} & staged else 0
    stages = chunks * (own + other) if staged else 0
    return run.encoding_layers * (rollouts + invariance + readout + stages)


def _rollouts(run: Run) -> int:
    return NETWORK_COUNT * run.branches * run.settings.steps * (run.probed + run.drawn) * run.layers


def _noise_invariance(run: Run) -> int:
    return NETWORK_COUNT * run.probed * len(SIGMAS) * 3 * run.layers


def _readout(run: Run) -> int:
    return NETWORK_COUNT * run.drawn * run.layers


def _controls(run: Run) -> int:
    return 4 * run.steps * DRAWS * run.layers  # a fifth one passes over every layer


def _cut(run: Run) -> int:
    cuts = (len(QUICK) if run.settings.quick else len(WHERE)) * len(run.every)
    work = run.rows(cuts) * (run.steps + NETWORK_COUNT * LEVELS)
    if not run.settings.quick:
        work += run.rows(len(run.reached) * run.heads) * (run.steps + LEVELS)
    return work * run.layers


def _leave_one_out(run: Run) -> int:
    frames = len(run.every) * run.steps * (run.layers - 1)
    behind = sum(run.layers - layer - 1 for layer in run.every)
    return DRAWS * (frames + NETWORK_COUNT * LEVELS * (run.layers + behind))


def _behind(run: Run) -> int:
    """Layers behind each of the reached ones, added up: what runs when all up to it are served."""
    return sum(run.layers - layer - 1 for layer in run.reached)


def _reuse(run: Run) -> int:
    starts, kinds = run.settings.start_steps, 2
    later = sum(run.steps - start - 1 for start in starts)
    whole = 2 * DRAWS * _behind(run) * (later + LEVELS)
    return whole + run.rows(kinds * len(run.reached)) * run.layers * (later + LEVELS)


def _reuse_controls(run: Run) -> int:
    whole = 2 * DRAWS * _behind(run) * (run.steps + LEVELS)
    return 2 * (whole + run.rows(len(run.reached)) * run.layers * (run.steps + LEVELS))


def _reuse_refresh(run: Run) -> int:
    work = 0
    for k in EVERY[:1] if run.settings.quick else EVERY:
        if k <= run.steps:
            fresh = ceil(run.steps / k)
            work += run.rows(len(run.reached)) * run.steps * run.layers
            served = _behind(run) * (run.steps - fresh)
            work += 2 * DRAWS * (len(run.reached) * fresh * run.layers + served)
    return work


def _skip(run: Run) -> int:
    kept = [k for k in (KEPT[:3:2] if run.settings.quick else KEPT) if k < run.steps]
    passes = sum(run.steps - k for k in kept) + LEVELS
    chosen = spans(run.reached[0], run.reached[-1], run.settings.quick)
    return DRAWS * passes * sum(run.layers - (last - first + 1) for first, last in chosen)


def _mask_drift(run: Run) -> int:
    """In blocks over a chunk, as many for each pass as the clip has chunks."""
    if not run.is_bidirectional:
        return 0
    levels = mask_drift.QUICK_LEVELS if run.settings.quick else mask_drift.LEVELS
    return NETWORK_COUNT * levels * (run.layers + 2) * run.layers * run.chunks


COUNTED: dict[str, Callable[[Run], int]] = {
    "rollouts": _rollouts,
    "noise_invariance": _noise_invariance,
    "readout": _readout,
    "controls": _controls,
    "cut": _cut,
    "leave_one_out": _leave_one_out,
    "reuse": _reuse,
    "reuse_controls": _reuse_controls,
    "reuse_refresh": _reuse_refresh,
    "skip": _skip,
    "mask_drift": _mask_drift,
}
STAGED = ("controls", "cut", "leave_one_out", "reuse", "reuse_controls", "reuse_refresh", "skip")
"""The experiments on the last chunk of a clip, which share its past and its plain answer."""
