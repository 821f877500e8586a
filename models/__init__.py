"""Networks; one file per network or family, small trained checkpoints in weights/.

    model = models.load("dense-tiles")                       # a shipped checkpoint
    model = models.load("runs/train/x/model.safetensors")    # a local one
    model = models.load("ema.pth")                           # one of SCD's or FAR's authors

A network's file offers `build(config)` and `config(preset, **changes)`.
"""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

WEIGHTS = Path(__file__).parent / "weights"


def networks() -> list[str]:
    """The network families that exist: the public files of this folder."""
    return sorted(file.stem for file in Path(__file__).parent.glob("[!_]*.py"))


def names() -> list[str]:
    """The trained models that ship with framelens."""
    return sorted(file.stem for file in WEIGHTS.glob("*.safetensors"))


def network(name: str) -> ModuleType:
    """The file of that network; an unknown one raises ValueError with those that exist."""
    if name not in networks():
        raise ValueError(f"no network is called {name!r}; there are {', '.join(networks())}")
    return importlib.import_module(f"models.{name}")


def find(name: str) -> Path:
    """The checkpoint behind a shipped name or a local path; raises ValueError or FileNotFoundError."""
    if name in names():
        return WEIGHTS / f"{name}.safetensors"
    path = Path(name)
    if path.is_dir():
        path = path / "model.safetensors"
    if path.exists():
        return path
    if path.suffix or "/" in name:
        raise FileNotFoundError(f"there is no checkpoint at {name}")
    raise ValueError(
        f"no model is called {name!r}; there are {', '.join(names())}, or give a checkpoint's path"
    )


def load(name: str, device: str = "cpu", dtype: str = "float32", **unsaid: Any) -> Any:
    """The model of that name or path, ready to sample; its `source` tells where it came from.

    `unsaid` is what a checkpoint does not say. For any of them: window, the past frames in view (all), and
    sink, the first frames that stay in view of a window (0). For one of the authors' code: height and width
    of the latents (8), patch (1), and for SCD fusion="add", whose tensors look as those of token_concat.

    Raises ValueError, or FileNotFoundError, with one line that names the file and what is wrong with it.
    """
    path = find(name)  # before the heavy imports: a misspelt name answers at once
    from models._checkpoint import read

    return read(path, device, dtype, unsaid)


def save(model: Any, path: Path | str) -> None:
    """A loaded model as a checkpoint of ours, which says all that its own file left unsaid."""
    from models._checkpoint import write

    write(Path(path), model.state_dict(), model.source.metadata | {"config": model.describe()})


def label(name: str) -> str:
    """What that model's results are filed under: its shipped name, or a checkpoint's file or folder."""
    path = find(name).resolve()
    return path.parent.name if path.stem == "model" else path.stem
