"""Which controls of a run hold.

control_outcomes(controls)          # {"own_frame_only": True, ...}; None for one that does not apply
"""

import xarray as xr


def control_threshold(controls: xr.Dataset) -> float:
    """The least effect of a control that must fire; ValueError where the dataset does not say it."""
    if "threshold" not in controls.attrs:
        known = ", ".join(map(str, controls.attrs)) or "none"
        raise ValueError(
            f"controls has no attribute 'threshold' to judge its controls by; there are: {known}; probe again"
        )
    return float(controls.attrs["threshold"])


def control_outcomes(controls: xr.Dataset) -> dict[str, bool | None]:
    """Whether each control did what it must; None for one that no clip has.

    What must fire is asked of the mean over clips, as a still clip has no past to miss; what must not, of
    every clip.
    """
    threshold = control_threshold(controls)
    outcomes: dict[str, bool | None] = {}
    for name in controls.control.values:
        own = controls.sel(control=name)
        passed = own.passed.dropna("clip")
        if not passed.size:
            outcomes[str(name)] = None
        elif own.must_fire.max() == 1:
            outcomes[str(name)] = float(own.effect.mean()) > threshold
        else:
            outcomes[str(name)] = bool((passed == 1).all())
    return outcomes
