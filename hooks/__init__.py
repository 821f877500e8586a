"""Instruments for any torch network: watch values, replace values, see attention.

    from hooks import Trace

    with Trace(model.hook_dict, "blocks.*.hook_resid_post", sink) as trace:
        rollout(model, clip, on_pass=trace.on_pass)

Nothing here knows diffusion, and nothing is imported before its name is used.
"""

from importlib import import_module

_HOMES = {
    "Trace": "trace",
    "Edit": "edit",
    "AttentionPoint": "attention",
    "AttentionTap": "attention",
    "Pattern": "attention",
    "AttentionCall": "attention_edit",
    "AttentionEdit": "attention_edit",
    "cut": "attention_edit",
    "Bypass": "bypass",
    "Cache": "cache",
    "record": "cache",
    "run_with_cache": "cache",
    "SilentHookError": "_instrument",
}


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"hooks has no {name!r}; there are {sorted(_HOMES)}")
    return getattr(import_module(f"hooks.{_HOMES[name]}"), name)
