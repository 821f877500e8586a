"""Seconds of a pass or frame from its cost and a machine's measured rates; pure arithmetic.

machine.sample_seconds(shape, steps, history) + machine.encode_seconds(shape, history)
"""

from dataclasses import dataclass

from framelens.models.cost.operations import Cost, Shape, encode_cost, modulation_cost, step_costs


@dataclass(frozen=True)
class Machine:
    """Rates of a machine with networks of one shape; models/cost/calibration.py measures them."""

    flops_per_second: float
    """Operations of linear layers; the time includes the norms, gates and activations around them."""
    attention_flops_per_second: float
    """Operations of attention to the past."""
    bytes_per_second: float
    """Bytes that a copy reads and writes."""
    seconds_per_block: float
    """Least time of a block with few tokens: the time to launch its operations."""
    hides_launches: bool
    """Whether work and launches overlap: they do on a GPU, not on a CPU."""

    @property
    def rates(self) -> str:
        """The rates in words."""
        return (
            f"{self.flops_per_second / 1e9:.0f} GFLOP/s in linear layers, "
            f"{self.attention_flops_per_second / 1e9:.0f} in attention, "
            f"{self.bytes_per_second / 1e9:.1f} GB/s, {1e6 * self.seconds_per_block:.0f} us to launch a block"
        )

    def seconds(self, cost: Cost) -> float:
        """Seconds of one pass: computing and moving overlap; launching overlaps or is added."""
        linear = max(cost.linear_flops / self.flops_per_second, cost.weight_bytes / self.bytes_per_second)
        attention = max(
            cost.attention_flops / self.attention_flops_per_second, cost.state_bytes / self.bytes_per_second
        )
        launching = cost.blocks * self.seconds_per_block
        if self.hides_launches:
            return max(linear + attention, launching)
        return linear + attention + launching

    def sample_seconds(self, shape: Shape, steps: int, history: int) -> float:
        """Seconds of all denoising steps of a frame, all branches one after the other."""
        passes = sum(count * self.seconds(step) for count, step in step_costs(shape, steps, history))
        return shape.branches * (passes + self.seconds(modulation_cost(shape, steps)))

    def encode_seconds(self, shape: Shape, history: int) -> float:
        """Seconds to encode a finished frame, all branches."""
        return shape.branches * self.seconds(encode_cost(shape, history))

    def frame_seconds(self, shape: Shape, steps: int, history: int) -> float:
        """Seconds of one frame, all branches: denoising and encoding."""
        return self.sample_seconds(shape, steps, history) + self.encode_seconds(shape, history)
