"""Downloads models from the Hugging Face hub: the files that a family needs, with their commit.

Only configurations, safetensors and PyTorch files are fetched. No code of a repository is fetched or run.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from framelens.models.loading.locate import WEIGHTS_SUFFIXES, Place
from framelens.records.extras import extra

WANTED = ["*.json", "*.txt", "*.model", "transformer*/*", "model.safetensors", "diffusion_pytorch_model*"]
"""Files of a repository in diffusers' layout, without its VAE and text encoder."""
CONFIGURATIONS = ["*.json", "transformer*/*.json"]
"""These are fetched before the weights. They say which family the weights belong to."""
LISTED = 8
"""At most this number of checkpoints are named in a message."""


def fetch(place: Place, accept: Callable[[Path], object] = lambda folder: None) -> Place:
    """The same model on disk, with the commit as its revision. Downloads what is missing.

    For a folder, the configurations come first, and `accept` may refuse them. Raises ValueError or OSError,
    in one line, for a repository or file that does not exist or cannot be reached.
    """
    with extra("families"):
        import huggingface_hub

    assert place.repo is not None
    with translate_errors(place):
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
def translate_errors(place: Place) -> Iterator[None]:
    """Turns errors of the hub's library in this block into a ValueError or OSError with one line."""
    with extra("families"):
        from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise OSError(
            f"{place.repo} needs you to accept its licence: accept it on its page, then log in with `hf auth "
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
    except errors.HFValidationError as error:  # the rules of the hub refuse this name
        raise ValueError(f"{place.name} is not a valid hub id: {str(error).splitlines()[0]}") from None


def _folder_at(place: Place, folder: Path) -> Place:
    if not any((folder / mark).exists() for mark in ("model_index.json", "config.json")):
        raise FileNotFoundError(
            f"{place.repo} has no model in diffusers' layout (config.json, model_index.json){_instead(place)}"
        )
    return replace(place, kind="folder", path=folder, revision=commit_of(folder, place))


def commit_of(path: Path, place: Place) -> str | None:
    """The commit of a file in the hub's cache: it is the name of the snapshot's folder there."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-1] else place.revision


def _offline(place: Place) -> str:
    return (
        f"{place.name} is not in the hub's cache and the hub cannot be reached: connect, or give a local "
        "folder or file"
    )


def _instead(place: Place) -> str:
    """The checkpoints in the repository, as the end of a message."""
    with extra("families"):
        import huggingface_hub

    assert place.repo is not None
    try:
        files = huggingface_hub.list_repo_files(place.repo, revision=place.revision)
    except Exception:  # noqa: BLE001  another error is being reported
        return ""
    found = [file for file in files if file.endswith(WEIGHTS_SUFFIXES)]
    more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
    return f"; it has {', '.join(found[:LISTED])}{more}" if found else ""
