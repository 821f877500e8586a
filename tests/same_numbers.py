"""Do two runs hold the same numbers, bit for bit?

    python tests/same_numbers.py runs/dense-tiles/before runs/dense-tiles/after
    python tests/same_numbers.py runs/dense-tiles/before runs/dense-tiles/after 1e-5

Compares every variable of every netCDF file below the two folders: names, types, shapes and bytes, or with a
tolerance how far values differ, as a share of the largest value of the variable (bytes: by one). Where both
runs have a plan.json, its verdict and split must be equal. The exit status is 0 where all are the same, 1
where some differ; those are named.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr


def differences(first: Path, second: Path, within: float = 0.0) -> Iterator[str]:
    """One line for every file or variable that is not the same in both folders."""
    plans = [folder / "plan.json" for folder in (first, second)]
    if all(plan.exists() for plan in plans):
        one, other = (json.loads(plan.read_text()) for plan in plans)
        yield from (f"plan.json, {key}: differs" for key in ("verdict", "split") if one[key] != other[key])
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
                by = distance(x, y)
                if not by <= within:
                    yield f"{name}, {variable}: differs, by {by:.1e} of its largest value"


def distance(x: np.ndarray, y: np.ndarray) -> float:
    """The largest difference as a share of the largest value, inf for other types, shapes and missing
    values; bytes, which are rounded, that differ by one are the same."""
    if (x.dtype, x.shape) != (y.dtype, y.shape) or x.dtype.kind not in "fu":
        return np.inf
    x, y, step = x.astype(float), y.astype(float), 1.0 if x.dtype.kind == "u" else 0.0
    if not np.array_equal(np.isfinite(x), np.isfinite(y)):
        return np.inf
    x, y = x[np.isfinite(x)], y[np.isfinite(y)]
    apart = np.abs(x - y)
    return float(np.max(apart, where=apart > step, initial=0) / max(np.abs(x).max(initial=0), 1e-30))


if __name__ == "__main__":
    tolerance = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    found = list(differences(Path(sys.argv[1]), Path(sys.argv[2]), tolerance))
    print(
        "\n".join(found) or ("the same, bit for bit" if tolerance == 0 else f"the same within {tolerance:g}")
    )
    sys.exit(bool(found))
