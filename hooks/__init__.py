"""Instruments for any torch network: read values, replace values, measure attention.

    from framelens.hooks import AttentionTap, Trace, together

    trace = Trace(model.hook_dict, "blocks.*.hook_resid_post", keep)      # keep(at, name, value)
    tap = AttentionTap(model.attn_dict, "*", measure)                     # measure(at, name, pattern)
    with together(trace, tap) as instruments:
        rollout(model, noise, sigmas, on_pass=instruments.on_pass)

Trace and `record` read values; Edit, Bypass and AttentionEdit replace them; `cut` hides other frames. Nothing
here depends on diffusion. `framelens.hooks.source` uses nnsight and is imported by its full name only.
"""

if __name__ != "framelens.hooks":
    raise ImportError("this folder is the package framelens.hooks; use that name", name=__name__)

from framelens.hooks._instrument import SilentHookError
from framelens.hooks.attention import AttentionPoint, AttentionTap, Pattern
from framelens.hooks.attention_edit import AttentionCall, AttentionEdit, cut
from framelens.hooks.bypass import Bypass
from framelens.hooks.cache import Cache, Recording, record, run_with_cache
from framelens.hooks.edit import Edit
from framelens.hooks.together import Together, together
from framelens.hooks.trace import Trace

__all__ = [
    "AttentionCall",
    "AttentionEdit",
    "AttentionPoint",
    "AttentionTap",
    "Bypass",
    "Cache",
    "Edit",
    "Pattern",
    "Recording",
    "SilentHookError",
    "Together",
    "Trace",
    "cut",
    "record",
    "run_with_cache",
    "together",
]
