"""The processes that a launcher started together, which share out the clips of a run: each is a rank.

    accelerate launch --multi_gpu --num_processes 2 -m probes --model dense-tiles

They meet twice: before the first clip, when rank 0 has opened the folder, and behind the last one. A rank
that dies in between is noticed there by the others, and its clips are missing until the command is repeated.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from time import sleep
from typing import Any

import torch
import torch.distributed as dist

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
    """This process's number and how many there are; one process alone meets nobody."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes what belongs to the whole run."""
        return self.rank == 0

    def told(self, value: Any) -> Any:
        """What rank 0 says, when all have come here. OSError where one does not."""
        if self.size == 1:
            return value
        box = [value]
        try:
            dist.broadcast_object_list(box, src=0)
            dist.barrier()
        except RuntimeError:
            raise OSError(DIED.format(size=self.size)) from None
        return box[0]

    def wait(self, meanwhile: Callable[[], object]) -> None:
        """Until all ranks have come here, `meanwhile()` now and then. OSError where one does not."""
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


def joined(device: str) -> Ranks:
    """The ranks of the launcher's environment, connected; this process alone where there is no launcher.

    A rank has a GPU of its own under `cuda`. ValueError for a device that ranks cannot share.
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
            dist.init_process_group("gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise OSError(f"the {size} processes of this run did not find each other: {reason}") from None
    return Ranks(dist.get_rank(), size)


def _own_gpu() -> int:
    """The GPU of this rank; ValueError where there are fewer than ranks on this machine."""
    own, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if own >= gpus:
        raise ValueError(f"process {own + 1} of this machine has no GPU of its own, there are {gpus}")
    return own
