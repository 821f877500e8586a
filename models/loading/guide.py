"""python -m framelens.models.loading.guide: writes the table of traits into models/README.md.

The table is made of `diffusion.contract.Traits`; a test compares the two.
"""

import sys
from dataclasses import MISSING, Field, fields
from pathlib import Path

from framelens.diffusion.contract import Traits
from framelens.records import replace_file

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- traits: python -m framelens.models.loading.guide -->\n", "<!-- end of traits -->\n"


def traits_table() -> str:
    """Every trait that an author may give a model: its value, its default, what it means; in markdown."""
    rows = ["| attribute | value | default | meaning |", "|---|---|---|---|"]
    for trait in fields(Traits):
        about = trait.metadata
        if about["shown"] != "-":
            value = about["expected"].removeprefix("None, ")
            rows.append(f"| `{trait.name}` | {value} | {_default(trait)} | {about['meaning']} |")
    return "\n".join(rows) + "\n"


def with_table(text: str) -> str:
    """The guide with the table as it is now between its two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + traits_table() + END + after


def _default(trait: Field) -> str:
    default = trait.default_factory() if trait.default is MISSING else trait.default  # pyright: ignore
    return trait.metadata["shown"] or ("none" if default is None else f"`{default!r}`".replace("'", '"'))


def main() -> int:
    """Writes the guide again."""
    text = with_table(README.read_text())
    replace_file(README, lambda partial: partial.write_text(text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
