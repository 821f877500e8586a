"""Instruments for any torch network: watch values, replace values, see attention.

    from framelens.hooks import Trace

    with Trace(model.hook_dict, "blocks.*.hook_resid_post", sink) as trace:
        rollout(model, noise, sigmas, on_pass=trace.on_pass)

Nothing here knows diffusion. `hooks.source` reads with nnsight, and is imported by its name only.
"""

if __name__ != "framelens.hooks":
    raise ImportError("this folder is the package framelens.hooks; use that name", name=__name__)

from framelens.hooks._instrument import SilentHookError
from framelens.hooks.attention import AttentionPoint, AttentionTap, Pattern
from framelens.hooks.attention_edit import AttentionCall, AttentionEdit, cut
from framelens.hooks.bypass import Bypass
from framelens.hooks.cache import Cache, record, run_with_cache
from framelens.hooks.edit import Edit
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
    "SilentHookError",
    "Trace",
    "cut",
    "record",
    "run_with_cache",
]
