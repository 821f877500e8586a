"""What this machine does at best, measured: the ceiling under which a pass is predicted.

machine = calibrated("cpu", "float32")
machine.seconds(denoise_cost(shape, history))        # no pass can be faster than this, nearly
"""

import time
from collections.abc import Callable
from statistics import median

import torch

from benchmarks._measure import synchronise
from models import dense
from models._machine import Machine

ROUNDS = 7
SIDE = {"cpu": 1024, "cuda": 8192}
"""Of the matrices that are multiplied."""
COPIED_BYTES = {"cpu": 2**27, "cuda": 2**30}


@torch.no_grad()
def calibrated(device: str, dtype: str) -> Machine:
    """One large matrix product, one large copy, and a network so small that only its launches take time."""
    kind, on_gpu = getattr(torch, dtype), device.startswith("cuda")
    side, copied = (sizes["cuda" if on_gpu else "cpu"] for sizes in (SIDE, COPIED_BYTES))
    a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
    multiplying = _seconds(lambda: a @ b, device)
    source = torch.zeros(copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copying = _seconds(lambda: target.copy_(source), device)
    launching = _launching(device, kind)
    return Machine(2 * side**3 / multiplying, 2 * source.nbytes / copying, launching, on_gpu)


def _launching(device: str, kind: torch.dtype) -> float:
    """Seconds per block of a network of width 8 and one token."""
    layers, steps = 8, 4
    small = {"channels": 1, "height": 1, "width": 1, "patch": 1, "heads": 1, "d_model": 8}
    network = dense.build(dense.Config(layers=layers, **small, rope_axes=(4, 2, 2)))
    network = network.to(device=device, dtype=kind).eval()
    x, sigma = torch.zeros(1, 1, 1, 1, 1, device=device), torch.ones(1, device=device)
    (context,) = network.at_steps(sigma, network.start(1))

    def passes() -> None:
        for _ in range(steps):
            network.denoise(x, sigma, context)

    return _seconds(passes, device) / (layers * steps)


def _seconds(run: Callable, device: str) -> float:
    taken = []
    for _ in range(ROUNDS):
        synchronise(device)
        began = time.perf_counter()
        run()
        synchronise(device)
        taken.append(time.perf_counter() - began)
    return median(taken[1:])
