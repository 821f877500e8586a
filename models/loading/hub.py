"""Models of the Hugging Face hub: what a family needs of a repository, on disk, with its commit.

No code of a repository is run and none is fetched: configurations, safetensors and PyTorch files alone.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from framelens.models.loading.locate import WEIGHTS_SUFFIXES, Place
from framelens.records.extras import extra

WANTED = ["*.json", "*.txt", "*.model", "transformer*/*", "model.safetensors", "diffusion_pytorch_model*"]
"""Of a repository in diffusers' layout, without its VAE and text encoder."""
CONFIGURATIONS = ["*.json", "transformer*/*.json"]
"""What is fetched before the weights, and says whose they are."""
LISTED = 8
"""Checkpoints named where one has to be chosen."""


def fetched(place: Place, accept: Callable[[Path], object] = lambda folder: None) -> Place:
    """The same model on disk, its revision the commit; downloads what is not there yet.

    Of a folder the configurations come first, and are shown to `accept`, which may refuse them. Raises
    ValueError or OSError, with one line, for what does not exist or cannot be reached.
    """
    with extra("families"):
        import huggingface_hub

    assert place.repo is not None
    with answered(place):
        if place.path.suffix:
            file = huggingface_hub.hf_hub_download(place.repo, place.path.as_posix(), revision=place.revision)
            return replace(place, kind="file", path=Path(file), revision=commit_of(Path(file), place))
        inside = "" if place.path == Path(".") else f"{place.path.as_posix()}/"
        for wanted in (CONFIGURATIONS, WANTED):
            patterns = [inside + pattern for pattern in wanted]
            folder = huggingface_hub.snapshot_download(
                place.repo, revision=place.revision, allow_patterns=patterns, ignore_patterns=["*.py"]
            )
            local = _folder_at(place, Path(folder) / inside)
            accept(local.path)
        return local


@contextmanager
def answered(place: Place) -> Iterator[None]:
    """What the hub's library raises in this block, as a ValueError or OSError with one line."""
    with extra("families"):
        from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise OSError(
            f"{place.repo} asks for its licence to be accepted: do so on its page, then log in with `hf auth "
            "login` or set HF_TOKEN"
        ) from None
    except errors.RepositoryNotFoundError:
        raise FileNotFoundError(
            f"the hub has no repository {place.repo}, or it is private: check the name, or log in with "
            "`hf auth login`"
        ) from None
    except errors.RevisionNotFoundError:
        raise FileNotFoundError(f"{place.repo} has no revision {place.revision!r}") from None
    except errors.LocalEntryNotFoundError:
        raise OSError(_offline(place)) from None
    except errors.EntryNotFoundError:
        raise FileNotFoundError(f"{place.repo} has no file {place.path}{_instead(place)}") from None
    except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled, ConnectionError) as error:
        raise OSError(f"{_offline(place)} ({type(error).__name__})") from None
    except errors.HFValidationError as error:  # a name that the hub's own rules refuse
        raise ValueError(f"{place.name} is no hub id: {str(error).splitlines()[0]}") from None


def _folder_at(place: Place, folder: Path) -> Place:
    if not any((folder / mark).exists() for mark in ("model_index.json", "config.json")):
        raise FileNotFoundError(
            f"{place.repo} has no model in diffusers' layout (config.json, model_index.json){_instead(place)}"
        )
    return replace(place, kind="folder", path=folder, revision=commit_of(folder, place))


def commit_of(path: Path, place: Place) -> str | None:
    """The commit, which is the name of the folder that the hub's cache keeps a snapshot in."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-1] else place.revision


def _offline(place: Place) -> str:
    return (
        f"{place.name} is not in the hub's cache and the hub cannot be reached: connect, or give a local "
        "folder or file"
    )


def _instead(place: Place) -> str:
    """The checkpoints that the repository has, for the end of a message."""
    with extra("families"):
        import huggingface_hub

    assert place.repo is not None
    try:
        files = huggingface_hub.list_repo_files(place.repo, revision=place.revision)
    except Exception:  # noqa: BLE001  the message is about something else
        return ""
    found = [file for file in files if file.endswith(WEIGHTS_SUFFIXES)]
    more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
    return f"; it has {', '.join(found[:LISTED])}{more}" if found else ""
