"""The devices of the machine: which exist, and their names."""

import platform

import torch

DTYPES = ("float32", "bfloat16", "float16")


AUTO = "auto"
"""All GPUs of the machine, and the CPU's memory for what does not fit; without GPUs, the CPU."""


def first_device(device: str) -> str:
    """The device where a model takes its inputs and gives its results: `device` itself, unless it is auto."""
    if device != AUTO:
        return device
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def device_name(device: str) -> str:
    """The name of the GPU, or the kind of processor."""
    device = first_device(device)
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()


def check_device(device: str, dtype: str) -> None:
    """Raises ValueError unless this machine has the device and framelens runs the dtype."""
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; there are {', '.join(DTYPES)}")
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise ValueError(f"unknown device {device!r}; try cpu, cuda or cuda:0") from None
    if kind not in ("cpu", "cuda"):
        raise ValueError(f"device {device!r} is not supported; there are cpu and cuda")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device {device!r} was requested, but this machine has no CUDA GPU; use --device cpu"
        )
    index = torch.device(device).index
    if kind == "cuda" and index is not None and index >= torch.cuda.device_count():
        raise ValueError(f"device {device!r} does not exist; there are {torch.cuda.device_count()} CUDA GPUs")
