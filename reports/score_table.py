"""Files of `framelens evaluate` as one table: a column for each network, or one for all seeds of a recipe.

    print(format_scores([Path("a.json"), Path("b.json")]))
    print(format_scores(files, over_seeds=True))        # means over training seeds, and their range

Scores stand side by side only where the same settings decide them. Seeds of a recipe differ in nothing else.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from framelens.analyses.intervals import spell_interval
from framelens.records import read_json_object
from framelens.records.trainings import HASHED, SCORED

FREE = ("model", "checkpoints", "device", "out", "config", *HASHED)
"""Settings that may differ: what is scored, where, and the places of networks, whose hashes are compared."""
DIGITS = 4


@dataclass(frozen=True)
class ScoredNetwork:
    """One network in a file of scores."""

    file: Path
    name: str
    measures: Mapping[str, Any]
    settings: Mapping[str, Any]
    """What decides the scores beside the network."""
    training: Mapping[str, Any] | None
    """Recipe and step; None for a network that was not trained here."""

    @property
    def seed(self) -> int | None:
        """The seed of its training."""
        return None if self.training is None else self.training["seed"]

    def spell(self, score: str) -> str:
        """The mean with its interval over clips; empty without that score."""
        held = self.measures.get(score)
        return "" if held is None else spell_interval(held["mean"], held["low"], held["high"], DIGITS)


def format_scores(files: Sequence[Path], over_seeds: bool = False) -> str:
    """The table in markdown. ValueError, in one line, where the files cannot stand in one table."""
    networks = read_networks(files)
    scores = list(dict.fromkeys(score for network in networks for score in network.measures))
    scores = [score for score in scores if all(_is_plain(each.measures.get(score)) for each in networks)]
    if over_seeds:
        _require_seeds(networks)
        heads = [f"{len(networks)} seeds"]
        scores = [score for score in scores if all(score in each.measures for each in networks)]
        rows = [[_spell_seeds([each.measures[score]["mean"] for each in networks])] for score in scores]
    else:
        heads = _name(networks)
        rows = [[network.spell(score) for network in networks] for score in scores]
    lines = [["score", *heads], ["---"] * (1 + len(heads))]
    lines += [[score, *row] for score, row in zip(scores, rows, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def read_networks(files: Sequence[Path]) -> list[ScoredNetwork]:
    """The networks of all files. ValueError, in one line, where they were not scored alike."""
    networks = [network for file in files for network in _read(file)]
    require_scored_alike(networks)
    return networks


def require_scored_alike(networks: Sequence[ScoredNetwork]) -> None:
    """ValueError, in one line, where other settings decided the scores of one network."""
    for first, other in pairwise(networks):
        _require_equal(first, other, first.settings, other.settings, "was scored with", "score both alike")


def _read(file: Path) -> Iterator[ScoredNetwork]:
    """The networks of a file. ValueError for another kind of file."""
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist; framelens evaluate --out writes such files")
    held = read_json_object(file)
    try:
        if held["kind"] != SCORED:
            raise KeyError(SCORED)
        settings = {name: value for name, value in held["settings"].items() if name not in FREE}
        settings |= {name: held.get(name, {}).get("sha256") for name in HASHED}
        for name, measures in held["measures"].items():
            recipe = _find_recipe(name, held["models"])
            stated = {}
            if recipe is not None:
                stated["videos"] = settings["videos"] or recipe["videos"]
                stated["frames"] = None if settings.get("predict") else settings["frames"] or recipe["frames"]
            yield ScoredNetwork(file, name, measures, settings | stated, recipe)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is not a file of framelens evaluate --out: it has no {error}") from None


def _find_recipe(name: str, models: Mapping[str, Any]) -> dict[str, Any] | None:
    """The recipe and step of a network's training; that of `x` also for `x, cut from 5`. None without one."""
    own = next((model for model in models if name == model or name.startswith(f"{model}, ")), None)
    training = None if own is None else models[own]["training"]
    return None if training is None else training["recipe"] | {"step": training["step"]}


def _require_equal(
    first: ScoredNetwork,
    other: ScoredNetwork,
    one: Mapping[str, Any],
    two: Mapping[str, Any],
    how: str,
    remedy: str,
) -> None:
    """ValueError with the first entry in which the two differ."""
    for name in dict.fromkeys([*one, *two]):
        if one.get(name) != two.get(name):
            raise ValueError(
                f"{other.name} in {other.file} {how} {name} {two.get(name)}, {first.name} in {first.file} "
                f"{how} {one.get(name)}: {remedy}"
            )


def _require_seeds(networks: Sequence[ScoredNetwork]) -> None:
    """ValueError unless the networks are of one recipe with different seeds."""
    if len(networks) < 2:
        raise ValueError("--over-seeds needs two networks or more")
    recipes = []
    for network in networks:
        if network.training is None:
            raise ValueError(f"{network.name} in {network.file} names no recipe; --over-seeds needs one")
        recipes.append({name: value for name, value in network.training.items() if name != "seed"})
    for other, recipe in zip(networks[1:], recipes[1:], strict=True):
        _require_equal(
            networks[0],
            other,
            recipes[0],
            recipe,
            "was trained with",
            "seeds of one recipe differ in the seed alone",
        )
    seeds = [network.seed for network in networks]
    twice = next((seed for seed in seeds if seeds.count(seed) > 1), None)
    if twice is not None:
        raise ValueError(f"seed {twice} is given twice; give networks of different seeds")


def _spell_seeds(means: Sequence[float]) -> str:
    """The mean over seeds, and the lowest and highest of them."""
    mean = sum(means) / len(means)
    return f"{mean:.{DIGITS}f} ({min(means):.{DIGITS}f} to {max(means):.{DIGITS}f})"


def _is_plain(measure: Any) -> bool:
    """Whether a score has one value, or is not there; others have one for each frame."""
    return measure is None or "mean" in measure


def _name(networks: Sequence[ScoredNetwork]) -> list[str]:
    """The names; with the files where two are alike."""
    names = [network.name for network in networks]
    return [
        name if names.count(name) == 1 else f"{name} ({network.file})"
        for name, network in zip(names, networks, strict=True)
    ]
