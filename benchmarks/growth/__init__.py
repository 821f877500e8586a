"""How the cost of probing grows with tokens, layers, steps, history, keys and clips."""
