"""Scores of networks as a table, and as a JSON file with what is needed to repeat them."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from framelens.analyses.intervals import spell_interval
from framelens.records.trainings import SCORED
from framelens.training.measures import DIGITS, ScoreMean

if TYPE_CHECKING:  # it imports torch
    import framelens.diffusion.contract


MOST_ROWS = 12
"""Rows of a printed table by frame: evenly spaced frames; the file of --out has all."""


class NetworkScores(NamedTuple):
    """The scores of one network by name, and those that have one value for each frame."""

    measures: dict[str, ScoreMean]
    by_frame: dict[str, dict[int, ScoreMean]]
    scorers: dict[str, dict[str, Any]]
    """What --features, --lpips and --vae opened, by name; empty where they were not given."""

    @property
    def means(self) -> dict[str, float]:
        """The means of the scores."""
        return {name: measure.mean for name, measure in self.measures.items()}

    def describe(self) -> dict[str, Any]:
        """All scores with intervals and numbers of clips, as plain values."""
        by_frame = {
            name: [{"frame": frame, **measure._asdict()} for frame, measure in frames.items()]
            for name, frames in self.by_frame.items()
        }
        return {name: measure._asdict() for name, measure in self.measures.items()} | by_frame


def format_table(scored: Mapping[str, Mapping[str, ScoreMean]]) -> str:
    """Means with intervals as a table, with a numbered column for each network."""
    rows = dict.fromkeys(name for measures in scored.values() for name in measures)
    lines = [[row, *(_spell(measures.get(row)) for measures in scored.values())] for row in rows]
    numbers = [f"({number})" for number in range(1, len(scored) + 1)]
    if len(scored) > 1:
        lines.insert(0, ["", *numbers])
    names = [f"{number} {name}" for number, name in zip(numbers, scored, strict=True)] * (len(scored) > 1)
    width = 2 + max(len(cell) for _, *cells in lines for cell in cells)
    table = (f"{row:75}" + "".join(f"{cell:>{width}}" for cell in cells) for row, *cells in lines)
    return "\n".join([*names, *table])


def format_frames(scored: Mapping[str, Mapping[str, Mapping[int, ScoreMean]]]) -> str:
    """The means by frame as tables, one for each network: a row for each of at most MOST_ROWS frames."""
    return "\n".join(line for name, scores in scored.items() for line in _format_frames(name, scores))


def _format_frames(name: str, scores: Mapping[str, Mapping[int, ScoreMean]]) -> list[str]:
    names = list(scores)
    frames = list(next(iter(scores.values())))
    width = 2 + max(map(len, names))
    shown = frames[:: -(-len(frames) // MOST_ROWS)]
    head = f"{name}, frame"
    rows = [
        f"{frame:<{len(head)}}" + "".join(f"{scores[each][frame].mean:>{width}.{DIGITS}f}" for each in names)
        for frame in shown
    ]
    return [head + "".join(f"{each:>{width}}" for each in names), *rows]


def _spell(measure: ScoreMean | None) -> str:
    return "" if measure is None else spell_interval(*measure[:3], digits=DIGITS)


def identify(network: "framelens.diffusion.contract.CausalDiffuser") -> dict[str, Any]:
    """What tells a network apart: its file, the hash of its weights, where they come from, their training."""
    from framelens.diffusion.contract import traits

    source = traits(network).source
    return {
        "file": str(source.file),
        "sha256": source.sha256,
        "repo": source.repo,
        "revision": source.revision,
        "network": source.metadata.get("network"),
        "training": source.metadata.get("training"),
    }


def write_scores(
    options: argparse.Namespace,
    models: Mapping[str, Any],
    measures: Mapping[str, Mapping[str, Any]],
    scorers: Mapping[str, Any],
    command: str,
) -> None:
    """Scores as JSON with what is needed to repeat them: command, settings, seed, models and versions.

    `models` has what `identify` gives, `measures` what `NetworkScores.describe` gives, each by name.
    """
    from framelens import records
    from framelens.models.loading.devices import device_name

    values = {
        "kind": SCORED,
        **records.origin(command, "torch", "numpy", "scikit-image"),
        "settings": spell_settings(options),
        "device": device_name(options.device),
        "models": models,
        "scores": {name: _read_means(held) for name, held in measures.items()},
        "measures": measures,
        **scorers,
    }
    records.write_json(options.out, values)


def spell_settings(options: argparse.Namespace) -> dict[str, Any]:
    """All options but --out, as plain values."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(options).items()
        if name != "out"
    }


def _read_means(measures: Mapping[str, Any]) -> dict[str, float]:
    """The means of described scores; those with one value for each frame are left out."""
    return {name: held["mean"] for name, held in measures.items() if isinstance(held, Mapping)}
