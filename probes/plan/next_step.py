"""How to act on a split, in one line: the recipe that trains it, or what to build in the model's own code.

acting(manifest, model.config, answer.cut, architecture, Path("runs/mine/default/plan.json"))
"""

import json
import shlex
from pathlib import Path
from typing import Any

from framelens.analyses.decision.curves import Cut, spans
from framelens.models.parts.config import StackConfig
from framelens.records.manifest import ProbeManifest
from framelens.records.plan import SPLIT_WORLDS, split_recipe

DECIDED = ("layers", "channels", "height", "width", "conditions")
"""Settings of a network that the plan or the world decides."""


def acting(manifest: ProbeManifest, config: Any, cut: Cut, built: dict[str, Any], file: Path) -> str:
    """The training command if a recipe of ours fits the model, else `framelens split` and what it does."""
    model = manifest.model
    is_ours = model.network == "dense" and isinstance(config, StackConfig)
    world = model.videos
    if is_ours and world in SPLIT_WORLDS and built["fusion"] == "residual":
        settings = [f"initial={shlex.quote(manifest.loaded_from)}", *_unlike_the_recipe(config)]
        options = f"--plan {shlex.quote(str(file))} --set {' '.join(settings)}"
        return f'make train MODEL={split_recipe(world)} ARGS="{options}"'
    encoder, decoder = spans(range(cut.encoder_layers)), spans(cut.decoder)
    command = f"framelens split --model {shlex.quote(manifest.loaded_from)} --plan {shlex.quote(str(file))}"
    return (
        f"{command}, where the family's layers can be separated; else, in the model's own code base, build "
        f"an encoder of {encoder} and a decoder of {decoder}, with the model's weights, that receives the "
        "encoder's features; then fine-tune it"
    )


def _unlike_the_recipe(config: StackConfig) -> list[str]:
    """The settings in which the model differs from the recipe's preset, as --set takes them."""
    from framelens.models import dense

    tiny, own = dense.config("tiny").values(), json.loads(json.dumps(config.values()))
    changed = {name: value for name, value in own.items() if json.loads(json.dumps(tiny[name])) != value}
    return [
        f"{name}={json.dumps(value, separators=(',', ':'))}"
        for name, value in changed.items()
        if name not in DECIDED
    ]
