"""Do two runs hold the same numbers, bit for bit?

    python tests/same_numbers.py runs/dense-tiles/before runs/dense-tiles/after

Compares every variable of every netCDF file below the two folders: names, types, shapes and bytes. The exit
status is 0 where all are equal, 1 where some differ; those are named.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import xarray as xr


def differences(first: Path, second: Path) -> Iterator[str]:
    """One line for every file or variable that is not the same in both folders."""
    one, other = ({path.relative_to(folder) for path in folder.rglob("*.nc")} for folder in (first, second))
    yield from (f"{name}: only in one of the folders" for name in sorted(one ^ other))
    for name in sorted(one & other):
        a, b = xr.load_dataset(first / name), xr.load_dataset(second / name)
        for variable in sorted({*a.variables} | {*b.variables}, key=str):
            if variable not in a or variable not in b:
                yield f"{name}, {variable}: only in one of the files"
                continue
            x, y = a[variable].values, b[variable].values
            if (x.dtype, x.shape, x.tobytes()) != (y.dtype, y.shape, y.tobytes()):
                yield f"{name}, {variable}: differs"


if __name__ == "__main__":
    found = list(differences(Path(sys.argv[1]), Path(sys.argv[2])))
    print("\n".join(found) or "the same, bit for bit")
    sys.exit(bool(found))
