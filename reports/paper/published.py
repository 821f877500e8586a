"""What the paper published: the values of its tables, and what its figures show.

    read_table("1")       # rows: row, measure, value (NaN where not known), source

The values stand in published.csv with their table and row. They come from public reading notes that agree
with each other and with the tables of the baselines; we have not seen the text of the paper.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

ORIGIN = (
    "Published values: Bai et al. 2026, arXiv 2602.10095, by table and row as given in published.csv. They "
    "come from public reading notes; we have not seen the paper's own text, and values that the notes do not "
    "give are left empty."
)
FILE = Path(__file__).with_name("published.csv")


@dataclass(frozen=True)
class PaperColumn:
    """A column of a table."""

    heading: str
    digits: int
    """Digits after the point of our value."""
    is_better: str = ""
    """`lower` or `higher`; empty where neither."""


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper: what it is about, its columns, and which of its rows ours stand for."""

    about: str
    measures: dict[str, PaperColumn]
    rows: dict[str, str]
    """The row of each role of ours: `dense` and `separated`."""


_SCORES = {
    "seconds_per_frame": PaperColumn("s / frame", 3, "lower"),
    "lpips": PaperColumn("LPIPS", 3, "lower"),
    "ssim": PaperColumn("SSIM", 3, "higher"),
    "psnr": PaperColumn("PSNR (dB)", 1, "higher"),
    "fvd": PaperColumn("FVD", 1, "lower"),
}
TABLES = {
    "1": PaperTable(
        "TECO-Minecraft, 128 x 128, one H100", _SCORES, {"dense": "Causal DiT-M", "separated": "SCD-M"}
    ),
    "2": PaperTable(
        "UCF-101, 64 x 64, 4 frames given and 12 generated",
        _SCORES,
        {"dense": "Causal DiT-B", "separated": "SCD-B"},
    ),
    "3": PaperTable(
        "VBench, 832 x 480, fine-tuned Wan2.1 T2V-1.3B, one H100 80 GB, batch 1",
        {
            "parameters": PaperColumn("parameters (billion)", 2),
            "frames_per_second": PaperColumn("frames / s", 2, "higher"),
            "latency": PaperColumn("latency (s)", 3, "lower"),
            "vbench_total": PaperColumn("VBench total", 2, "higher"),
            "vbench_quality": PaperColumn("VBench quality", 2, "higher"),
            "vbench_semantic": PaperColumn("VBench semantic", 2, "higher"),
        },
        {"dense": "Self Forcing (frame-wise)", "separated": "SCD"},
    ),
}
STANDS_FOR = {"minecraft": "1", "tiny": "1", "tiles": "1", "digits": "2", "wan-1.3b": "3"}
"""The table that a benchmark's preset, or a comparison's videos, are shown in."""


def read_table(table: str) -> pd.DataFrame:
    """The published rows of one table in its order, one line for each row and measure."""
    values = pd.read_csv(FILE, dtype={"table": str})
    chosen = values.loc[values["table"] == table, ["row", "measure", "value", "source"]]
    return pd.DataFrame(chosen).reset_index(drop=True)
