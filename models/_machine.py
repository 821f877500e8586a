"""Seconds from a cost, at a machine's measured rates; pure arithmetic.

machine.sample_seconds(shape, steps, history) + machine.encode_seconds(shape, history)
"""

from dataclasses import dataclass

from models._cost import Cost, Shape, denoise_cost, encode_cost, modulation_cost


@dataclass(frozen=True)
class Machine:
    """Operations and bytes a second at best, and the least time that a block of a network takes."""

    flops_per_second: float
    bytes_per_second: float
    seconds_per_block: float
    hides_launches: bool
    """A GPU works while the next operation is launched, a CPU does one after the other."""

    def seconds(self, cost: Cost) -> float:
        """Of one pass: computing and moving hide each other; launching adds to them or hides too."""
        working = max(cost.flops / self.flops_per_second, cost.bytes / self.bytes_per_second)
        launching = cost.blocks * self.seconds_per_block
        return max(working, launching) if self.hides_launches else working + launching

    def sample_seconds(self, shape: Shape, steps: int, history: int) -> float:
        """Of all denoising steps of a frame, all branches, pass by pass."""
        step = self.seconds(denoise_cost(shape, history, modulated=True))
        return shape.branches * (steps * step + self.seconds(modulation_cost(shape, steps)))

    def encode_seconds(self, shape: Shape, history: int) -> float:
        """Of taking a finished frame into memory, all branches."""
        return shape.branches * self.seconds(encode_cost(shape, history))
