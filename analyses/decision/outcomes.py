"""Which controls of a run pass.

control_outcomes(controls)          # {"own_frame_only": True, ...}; None for one that does not apply
"""

import xarray as xr


def control_threshold(controls: xr.Dataset) -> float:
    """The least effect of a control that must fire; ValueError where the dataset has none."""
    if "threshold" not in controls.attrs:
        known = ", ".join(map(str, controls.attrs)) or "none"
        raise ValueError(
            f"controls has no attribute 'threshold' to judge its controls by; there are: {known}; probe again"
        )
    return float(controls.attrs["threshold"])


def ignores_past(controls: xr.Dataset) -> bool:
    """Whether the frame is the same after another clip's frames, which no instrument replaced."""
    effect = controls.get("past_effect")
    return effect is not None and float(effect.mean()) <= control_threshold(controls)


def control_outcomes(controls: xr.Dataset) -> dict[str, bool | None]:
    """Whether each control passed; None for one that no clip has.

    A control that must change the frame is judged by its mean over clips, since a still clip has no past to
    lose; a control that must change nothing is judged on every clip. The former do not apply to a network
    that ignores its past: there is nothing to remove.
    """
    threshold, ignores = control_threshold(controls), ignores_past(controls)
    outcomes: dict[str, bool | None] = {}
    for name in controls.control.values:
        own = controls.sel(control=name)
        passed = own.passed.dropna("clip")
        if not passed.size or (ignores and own.must_fire.max() == 1):
            outcomes[str(name)] = None
        elif own.must_fire.max() == 1:
            outcomes[str(name)] = float(own.effect.mean()) > threshold
        else:
            outcomes[str(name)] = bool((passed == 1).all())
    return outcomes
