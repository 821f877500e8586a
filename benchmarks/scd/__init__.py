"""Time and memory of a dense causal diffuser beside its separated twin."""
