"""Seconds from a cost, at a machine's measured rates; pure arithmetic.

machine.sample_seconds(shape, steps, history) + machine.encode_seconds(shape, history)
"""

from dataclasses import dataclass

from framelens.models.cost.operations import Cost, Shape, denoise_cost, encode_cost, modulation_cost


@dataclass(frozen=True)
class Machine:
    """What a machine does in a second with networks of one shape; models/cost/calibration.py measures it."""

    flops_per_second: float
    """Of linear layers, with the time of the norms, gates and activations around them."""
    attention_flops_per_second: float
    """Of attention to the past."""
    bytes_per_second: float
    """Read and written by a copy."""
    seconds_per_block: float
    """What a block takes at least, however few its tokens: to launch its operations."""
    hides_launches: bool
    """A GPU works while the next operation is launched, a CPU does one after the other."""

    @property
    def rates(self) -> str:
        """The rates in words."""
        return (
            f"{self.flops_per_second / 1e9:.0f} GFLOP/s in linear layers, "
            f"{self.attention_flops_per_second / 1e9:.0f} in attention, "
            f"{self.bytes_per_second / 1e9:.1f} GB/s, {1e6 * self.seconds_per_block:.0f} us to launch a block"
        )

    def seconds(self, cost: Cost) -> float:
        """Of one pass: computing and moving hide each other; launching adds to them or hides too."""
        linear = max(cost.linear_flops / self.flops_per_second, cost.weight_bytes / self.bytes_per_second)
        attention = max(
            cost.attention_flops / self.attention_flops_per_second, cost.state_bytes / self.bytes_per_second
        )
        launching = cost.blocks * self.seconds_per_block
        if self.hides_launches:
            return max(linear + attention, launching)
        return linear + attention + launching

    def sample_seconds(self, shape: Shape, steps: int, history: int) -> float:
        """Of all denoising steps of a frame, all branches, pass by pass."""
        step = self.seconds(denoise_cost(shape, history, modulated=True))
        return shape.branches * (steps * step + self.seconds(modulation_cost(shape, steps)))

    def encode_seconds(self, shape: Shape, history: int) -> float:
        """Of taking a finished frame into memory, all branches."""
        return shape.branches * self.seconds(encode_cost(shape, history))

    def frame_seconds(self, shape: Shape, steps: int, history: int) -> float:
        """Of one frame, all branches: denoised and taken into memory."""
        return self.sample_seconds(shape, steps, history) + self.encode_seconds(shape, history)
