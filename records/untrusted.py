"""Checks of files that may be damaged or of another kind, before their content is read.

    require_kind(path)              # ValueError for a Git LFS pointer, a GGUF file, a web page, an empty file
    require_honest_zip(path)        # ValueError for an archive that expands beyond its size
    require_honest_npy(path)        # ValueError for a header that declares more than the file holds

Each error is one line that names the file and says what to do. Memory and time stay small.
"""

import os
import zipfile
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

KINDS = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the file itself: run `git lfs pull`, or download the file",
    ),
    (b"GGUF", "a GGUF file, whose weights are quantised: give the original weights, as safetensors"),
    (b"<!DOCTYPE", "a web page: the download failed, download the file again"),
    (b"<!doctype", "a web page: the download failed, download the file again"),
    (b"<html", "a web page: the download failed, download the file again"),
)
"""How files of other kinds begin, and what they are."""
EXPANSION, SMALL = 100, 100_000_000
"""An archive may expand to this many times its size, or to this number of bytes. Latents compress little;
text embeddings that are mostly zeros compress about 20 times."""
HEADER = 10_000
"""Characters that the header of an array may have, as in numpy."""


def require_kind(path: Path) -> None:
    """Raises ValueError for an empty file or one of another kind, OSError for one that cannot be read."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except PermissionError:
        raise PermissionError(f"{path} cannot be read: permission denied; change its permissions") from None
    except IsADirectoryError:
        raise IsADirectoryError(f"{path} is a folder; expected a file") from None
    if not start:
        raise ValueError(f"{path} is empty: copy or download it again")
    what = next((what for magic, what in KINDS if start.startswith(magic)), None)
    if what is not None:
        raise ValueError(f"{path} is {what}")


def is_archive(path: Path) -> bool:
    """Whether the file begins as a zip archive does; a damaged one counts too."""
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def require_honest_zip(path: Path, compressed: bool = True) -> None:
    """Raises ValueError for a damaged archive and for one that expands far beyond its size.

    `compressed` is whether its entries may be compressed; those of torch.save never are.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is damaged: {error}; copy or download it again") from None
    size, expanded = path.stat().st_size, sum(entry.file_size for entry in entries)
    packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    if packed and not compressed:
        raise ValueError(f"{path} is not a file of torch.save: its entry {packed[0]} is compressed")
    if expanded > max(EXPANSION * size, SMALL) or (not compressed and expanded > size):
        raise ValueError(
            f"{path} declares {expanded / 1e9:.1f} GB in a file of {size / 1e9:.3f} GB: it is damaged or not "
            "what it seems; make it again"
        )
    require_memory_for(path, expanded)


def require_honest_npy(path: Path) -> None:
    """Raises ValueError if the header of an .npy file, or of an array in an .npz, does not fit its size."""
    if path.suffix.lower() == ".npz":
        require_honest_zip(path)
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.filename.endswith(".npy"):
                    _check_header(path, lambda name=entry: archive.open(name), entry.file_size)
    else:
        _check_header(path, lambda: path.open("rb"), path.stat().st_size)


def require_memory_for(path: Path, needed: int) -> None:
    """Raises ValueError if this machine does not have that number of bytes of memory, used or free."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise ValueError(
            f"{path} needs {needed / 1e9:.1f} GB, this machine has {memory / 1e9:.1f} GB: split the file, or "
            "make it again if it should be small"
        )


def _check_header(path: Path, open_it: Callable[[], IO[bytes]], size: int) -> None:
    """Raises ValueError unless an array's header is whole and `size` bytes can hold what it declares."""
    try:
        with open_it() as file:
            read: dict[tuple[int, int], Any] = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }
            version = np.lib.format.read_magic(file)
            shape, _, dtype = read.get(version, np.lib.format.read_array_header_2_0)(
                file, max_header_size=HEADER
            )
            begin = file.tell()
    except (ValueError, SyntaxError, RecursionError, EOFError, zipfile.BadZipFile, OverflowError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is damaged: {reason}; copy or make it again") from None
    declared = prod(shape) * dtype.itemsize
    if declared > size - begin and not dtype.hasobject:
        raise ValueError(
            f"{path} is cut off or damaged: its header declares {declared} bytes of numbers, {size - begin} "
            "are there; copy or make it again"
        )
    require_memory_for(path, declared)
