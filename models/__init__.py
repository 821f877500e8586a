"""Networks; one file per network or family, small trained checkpoints in weights/.

    model = models.load("dense-tiles")                          # a shipped checkpoint
    model = models.load("runs/train/x/model.safetensors")       # a local one
    model = models.load("ema.pth")                              # one of other people's code
    model = models.load("org/name/checkpoints/a.pt@main")       # of the Hugging Face hub
    model = models.load("my_adapter.py:load")                   # what a function of yours returns

A network's file offers `build(config)`, and `config(preset, **changes)` if recipes train it; the file of a
family, which reads other people's checkpoints, `CLASSES`, `DEFAULTS`, `recognises(names)` and
`read(checkpoint, options)` (models/loading/read.py).
"""

if __name__ != "framelens.models":
    raise ImportError("this folder is the package framelens.models; use that name", name=__name__)

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from framelens.models.loading.locate import Place
from framelens.models.loading.locate import find as find_place
from framelens.records.registry import Registry

if TYPE_CHECKING:  # it imports torch, and a misspelt name is to answer at once
    import framelens.diffusion.contract

WEIGHTS = Path(__file__).parent / "weights"
SHARED = frozenset({"adapter_template", "cost", "encoders", "loading", "parts", "variants", "weights"})
"""What networks and families share; every other public file or folder here is a network or a family."""
_ARCHITECTURES = Registry(__name__, "network", SHARED)


def networks() -> list[str]:
    """The networks of which a recipe can be trained: `build` and presets. Imports them all."""
    return [name for name in buildable() if "config" in vars(network(name))]


def buildable() -> list[str]:
    """The networks that a stored configuration rebuilds: those that offer `build`. Imports them all."""
    return [name for name in _ARCHITECTURES.names() if hasattr(network(name), "build")]


def families() -> list[str]:
    """The families whose checkpoints can be read: those that offer `recognises`. Imports them all."""
    return [name for name in _ARCHITECTURES.names() if hasattr(network(name), "recognises")]


def names() -> list[str]:
    """The trained models that ship with framelens: one in the installed package, more in a checkout."""
    return sorted(file.stem for file in WEIGHTS.glob("*.safetensors"))


def network(name: str) -> ModuleType:
    """The module of that network or family; an unknown one raises ValueError with those that exist."""
    return _ARCHITECTURES.load(name)


def find(name: str) -> Place:
    """The place of a shipped name, a path, a hub id or an adapter; ValueError or FileNotFoundError."""
    return find_place(name, {shipped: WEIGHTS / f"{shipped}.safetensors" for shipped in names()})


def load(
    name: str, device: str = "cpu", dtype: str = "float32", copies: int = 1, **asked: Any
) -> "framelens.diffusion.contract.CausalDiffuser":
    """The model of that name, path, hub id or adapter, ready to sample; `source` tells where it came from.

    `asked` holds options that a checkpoint does not store. For our checkpoints: window, the number of past
    frames in view (all), and sink, the number of first frames that stay in view of a window (0). For a
    family: the names in its DEFAULTS. `device` "auto" uses all GPUs, or the processor if there are none. If
    that many `copies` of the weights do not fit, the call is refused before they are read.

    Raises ValueError or OSError with one line that names the file and what is wrong with it.

    >>> import framelens
    >>> model = framelens.load("dense-tiles")
    >>> model.geometry.layers, model.takes
    (12, 'actions')
    """
    place = find(name)  # before the heavy imports: a misspelt name answers at once
    from framelens.models.loading.read import read

    return read(place, device, dtype, asked, copies)


def load_shuffled(
    name: str, seed: int, device: str = "cpu", dtype: str = "float32", **asked: Any
) -> "framelens.diffusion.contract.CausalDiffuser":
    """The same with random weights: the entries of each tensor are permuted."""
    place = find(name)
    from framelens.models.loading.read import read

    return read(place, device, dtype, asked, 1, seed)


def save(
    model: "framelens.diffusion.contract.CausalDiffuser",
    path: Path | str,
    shard_size: int | str | None = None,
) -> None:
    """Writes a loaded model as one of our checkpoints, with everything that its own file did not store.

    With a `shard_size`, bytes or text as "5GB", `path` is a new folder: it holds one file, or several of at
    most that size and their index. `load` opens either.
    """
    from framelens.diffusion.contract import module_of, traits
    from framelens.models.loading.checkpoint import write, write_shards
    from framelens.models.loading.own import distinct_weights

    said = traits(model)
    if said.describe is None:
        raise ValueError(
            f"a {type(model).__name__} does not describe() its configuration, so it cannot be saved"
        )
    metadata = said.source.metadata | {"config": said.describe()}
    if said.sampling is not None:
        metadata["sampling"] = said.sampling.describe()
    if said.latent:
        metadata["latent"] = True
    weights = distinct_weights(module_of(model))
    if shard_size is None:
        write(Path(path), weights, metadata)
    else:
        write_shards(Path(path), weights, metadata, shard_size)


def label(name: str) -> str:
    """What that model's results are filed under: its shipped name, or a checkpoint's file or folder."""
    return find(name).label
