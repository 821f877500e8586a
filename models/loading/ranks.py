"""The processes that a launcher started together, which share out the clips: each is a rank.

    accelerate launch --multi_gpu --num_processes 2 -m framelens.probes --model dense-tiles
    torchrun --nproc-per-node 2 -m framelens.training --model dense-tiles

A probe has two barriers: before the first clip, when rank 0 has opened the folder, and after the last clip.
The other ranks notice there that a rank has died; its clips are missing until the command is given again. The
ranks of a training meet at every step.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from time import sleep
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

PATIENCE = timedelta(days=30)
"""Longest wait for the other ranks: a clip may take hours, and a dead rank is noticed at once."""
SECONDS = 0.5
"""Between two looks at the others' progress."""
DIED = (
    "one of {size} processes died, was stopped or cannot be reached; the finished clips are kept: give the "
    "same command again"
)


@dataclass(frozen=True)
class Ranks:
    """This process's number and how many there are; no barrier with one process."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes what belongs to the whole run."""
        return self.rank == 0

    def broadcast(self, value: Any) -> Any:
        """The value of rank 0, when all ranks have called this. OSError where a rank is gone."""
        if self.size == 1:
            return value
        box = [value]
        try:
            dist.broadcast_object_list(box, src=0)
            dist.barrier()
        except RuntimeError:
            raise OSError(DIED.format(size=self.size)) from None
        return box[0]

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replaces each tensor by its mean over the ranks, which give the same shapes. OSError as above."""
        if self.size == 1:
            return
        try:
            for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
                assert work is not None
                work.wait()
        except RuntimeError:
            raise OSError(DIED.format(size=self.size)) from None
        for tensor in tensors:
            tensor /= self.size

    def any(self, is_so: bool, device: torch.device) -> bool:
        """Whether it is so on at least one rank; all ranks ask at the same time."""
        if self.size == 1:
            return is_so
        share = torch.tensor(float(is_so), device=device)
        self.average([share])
        return bool(share)

    def wait(self, meanwhile: Callable[[], object]) -> None:
        """Waits for all ranks and calls `meanwhile()` now and then. OSError where a rank is gone."""
        if self.size == 1:
            return
        try:
            met = dist.barrier(async_op=True)
            assert met is not None
            while not met.is_completed():
                meanwhile()
                sleep(SECONDS)
            met.wait()
        except RuntimeError:
            raise OSError(DIED.format(size=self.size)) from None
        meanwhile()


def join_ranks(device: str, backend: str = "gloo") -> Ranks:
    """The ranks of the launcher's environment, connected; this process alone without a launcher.

    A rank has a GPU of its own under `cuda`. The backend is torch's: "gloo" for meetings and for tensors of
    CPUs, "cpu:gloo,cuda:nccl" for tensors of GPUs, too. ValueError for a device that ranks cannot share.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Ranks()
    if device not in ("cpu", "cuda"):
        raise ValueError(f"{size} processes share out cpu or the GPUs as cuda; --device {device} is for one")
    if device == "cuda":
        torch.cuda.set_device(_own_gpu())
    try:
        if not dist.is_initialized():
            dist.init_process_group(backend, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise OSError(f"the {size} processes of this run did not find each other: {reason}") from None
    return Ranks(dist.get_rank(), size)


def leave_ranks() -> None:
    """Ends the connection, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _own_gpu() -> int:
    """The GPU of this rank; ValueError where there are fewer than ranks on this machine."""
    own, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if own >= gpus:
        raise ValueError(f"process {own + 1} of this machine has no GPU of its own, there are {gpus}")
    return own
