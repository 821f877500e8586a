"""Time and memory of a dense causal diffuser and of its separated twin."""
