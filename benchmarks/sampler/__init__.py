"""framelens' sampler against a plain one with the same weights, which computes everything again each pass."""
