"""The results of a benchmark: a folder is written once, and a median is spelled with its interval.

Imports nothing heavy, so that `--help` does without torch.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def require_unused(folder: Path, is_used: bool) -> None:
    """ValueError where the folder holds results already."""
    if is_used:
        raise ValueError(f"{folder} holds results already; choose another --out, or delete it")


def spell_median(found: Mapping[str, Any]) -> str:
    """`1.32 [1.20, 1.60]` for what `measure.median_of` gives."""
    low, high = found["interval"]
    return f"{found['median']:.2f} [{low:.2f}, {high:.2f}]"
