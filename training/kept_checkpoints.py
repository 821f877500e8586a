"""Scores of every kept checkpoint of a training, of the same clips and noise, in one file.

    framelens evaluate --checkpoints runs/train/a --clips 16       # -> runs/train/a/scores.json

Each checkpoint is a network of the file, by the name of its own file. The file is written after each of them.
The same command scores what the file does not have yet. `framelens compare runs/train/a` draws the scores.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framelens.records.checks import Rule
from framelens.records.trainings import (
    HASHED,
    SCORES,
    find_checkpoints,
    find_training,
    order_by_step,
    read_training,
)

if TYPE_CHECKING:  # they import torch, which --help does without
    from framelens.diffusion.contract import CausalDiffuser
    from framelens.training.score_files import NetworkScores

OTHERS = ("model", "cut_from", "fetch_once")
"""Options that say which networks are scored, as --checkpoints does."""
FREE = ("model", "device", "checkpoints")
"""Settings that may differ between two commands that write one file."""

CHECKPOINT_RULES = {
    "checkpoints": Rule(
        lambda value, options: value is None or all(getattr(options, name) is None for name in OTHERS),
        lambda name, value, options: (
            f"{name} scores kept checkpoints as they are: leave out --model, --cut-from and --fetch-once"
        ),
    )
}


def add_checkpoint_options(parser: argparse.ArgumentParser) -> None:
    """Adds --checkpoints."""
    kept = parser.add_argument_group("checkpoints of a training")
    kept.add_argument(
        "--checkpoints", type=Path, metavar="FOLDER",
        help="score every kept checkpoint of this training, in place of --model; writes scores.json into the "
        "folder, or --out; what is scored already is not scored again",
    )  # fmt: skip


def score_checkpoints(
    options: argparse.Namespace, score: "Callable[[CausalDiffuser], NetworkScores]", command: str
) -> dict[str, dict[str, float]]:
    """The means of all kept checkpoints by name; the file has also intervals and what repeats them.

    ValueError where the file there is of other settings, another training, or other networks for features.
    """
    from framelens.records import read_json_object
    from framelens.records.identity import Input
    from framelens.records.progress import progress_bar
    from framelens.training.score_files import identify, spell_settings, write_scores
    from framelens.training.scored_models import open_model

    files = find_checkpoints(options.checkpoints)
    options.out = options.out or find_training(options.checkpoints) / SCORES
    options.model = [file.stem for file in files]
    held: Mapping[str, Any] = {"models": {}, "measures": {}}
    if options.out.exists():
        held = read_json_object(options.out)
        _require_same(options.out, held, spell_settings(options), read_training(files[-1])["recipe"])
    models, measures, scorers = dict(held["models"]), dict(held["measures"]), None
    for file in progress_bar(files, unit="checkpoint", leave=False):
        name = file.stem
        if name in models and models[name]["sha256"] == Input.read("checkpoint", file).sha256:
            continue
        network = open_model(str(file), options)
        found = score(network)
        scorers = found.scorers
        _require_scorers(options.out, held, scorers)
        models[name], measures[name] = identify(network), found.describe()
        models, measures = (
            {step: each[step] for step in sorted(each, key=order_by_step)} for each in (models, measures)
        )
        write_scores(options, models, measures, scorers, command)
    return read_json_object(options.out)["scores"]


def _require_same(out: Path, held: Mapping[str, Any], settings: Mapping[str, Any], recipe: Any) -> None:
    """ValueError unless the file holds scores of checkpoints of this training, made with these settings."""
    from framelens.records.identity import describe_differences

    remedy = f"give another --out, or delete {out}"
    try:
        if held["settings"]["checkpoints"] is None:
            raise KeyError("checkpoints")
        before = {name: value for name, value in held["settings"].items() if name not in FREE}
        recipes = [model["training"]["recipe"] for model in held["models"].values()]
        held["measures"]  # noqa: B018 (a file without them is of another kind)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{out} is not a file of evaluate --checkpoints: it has no {error}; {remedy}"
        ) from None
    now = {name: value for name, value in settings.items() if name not in FREE}
    if before != now:
        raise ValueError(f"{out} was made with {describe_differences(before, now)}: {remedy}")
    for other in recipes:
        if other != recipe:
            found = describe_differences(other, recipe)
            raise ValueError(f"{out} is of another training, with {found}: {remedy}")


def _require_scorers(out: Path, held: Mapping[str, Any], scorers: Mapping[str, Any]) -> None:
    """ValueError where the file was made with other networks for features, LPIPS or decoding."""
    for name in HASHED if held["models"] else ():
        if held.get(name, {}).get("sha256") != scorers[name].get("sha256"):
            raise ValueError(f"{out} was made with another network for --{name}: give another --out")
