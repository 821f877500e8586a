"""Checks that weights fit a device, before they are read.

require_memory("a.safetensors", files, "cuda", "bfloat16", copies=2)        # ValueError if they do not fit
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from framelens.models.loading.files import PYTORCH_SUFFIXES, read_file
from framelens.records.untrusted import is_archive, require_kind

MEMINFO = Path("/proc/meminfo")
CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)
"""The files that hold the limit and the use of a container, in bytes."""
STORED_BYTES = 4
"""Bytes of a number in files without a header: most of these files hold float32."""


def require_memory(what: str, files: Sequence[Path], device: str, dtype: str, copies: int = 1) -> None:
    """Raises ValueError, with the bytes needed and free, if the tensors in these files do not fit."""
    require_bytes(what, copies * bytes_as(files, getattr(torch, dtype)), device, dtype, copies)


def require_bytes(what: str, needed: int, device: str, dtype: str, copies: int = 1) -> None:
    """Raises ValueError, with remedies, if the device has fewer than `needed` bytes free."""
    free = free_bytes(device)
    if free is not None and needed > free:
        twice = f" ({copies} networks: this one and its null model)" if copies > 1 else ""
        raise ValueError(
            f"{what} needs {needed / 1e9:.1f} GB as {dtype}{twice}, {free / 1e9:.1f} GB are free on "
            f"{'all devices' if device == 'auto' else device}: try {_remedy(device, dtype)}"
        )


def require_room_for_clips(clips: int, frames: int, shape: tuple[int, int, int], option: str) -> None:
    """Raises ValueError if this machine has no room for that number of clips of that number of frames.

    `shape` is (channels, height, width) of a frame in float32, `option` gives the number of clips.
    """
    needed, free = clips * frames * math.prod(shape) * 4, free_bytes("cpu")
    if free is not None and needed > free:
        raise ValueError(
            f"{clips} clips of {frames} frames need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: "
            f"lower {option} or the number of frames"
        )


def bytes_as(files: Sequence[Path], dtype: torch.dtype) -> int:
    """The bytes that the tensors in these files need as that dtype. Reads only headers and sizes."""
    return sum(values_in(path) for path in files) * dtype.itemsize


def values_in(path: Path) -> int:
    """The count of numbers in a file's tensors, from its header; from the size for old torch.save files."""
    require_kind(path)
    if path.suffix in PYTORCH_SUFFIXES and not is_archive(path):
        return path.stat().st_size // STORED_BYTES
    if path.suffix in PYTORCH_SUFFIXES:
        return sum(tensor.numel() for tensor in read_file(path)[1].values())  # mapped into memory, not read
    try:
        with safe_open(path, framework="pt") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from None
    return sum(torch.Size(shape).numel() for shape in shapes)


def free_bytes(device: str) -> int | None:
    """Free bytes of a device, or of all devices for "auto"; None if the machine does not report them."""
    if device == "auto" and torch.cuda.is_available():
        gpus = sum(torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count()))
        return gpus + (free_bytes("cpu") or 0)
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    known = [free for free in (_free_of_machine(), *map(_free_of_container, CGROUPS)) if free is not None]
    return min(known, default=None)


def _free_of_machine() -> int | None:
    lines = MEMINFO.read_text().splitlines() if MEMINFO.exists() else []
    kibibytes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return kibibytes[0] * 1024 if kibibytes else None


def _free_of_container(files: tuple[Path, Path]) -> int | None:
    """The limit minus the use. Cached files do not count as use: the kernel frees them on demand."""
    limit, used = files
    if not limit.exists() or not used.exists() or not limit.read_text().strip().isdigit():
        return None
    table = limit.with_name("memory.stat")
    lines = table.read_text().splitlines() if table.exists() else []
    given_back = [int(line.split()[1]) for line in lines if line.startswith("inactive_file ")]
    return int(limit.read_text()) - int(used.read_text()) + sum(given_back)


def _remedy(device: str, dtype: str) -> str:
    spread = device.startswith("cuda")
    remedies = ["--dtype bfloat16"] * (dtype == "float32") + ["--device auto"] * spread
    return (
        ", ".join([*remedies, "or a machine with more memory"]) if remedies else "a machine with more memory"
    )
