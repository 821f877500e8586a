"""What statistics accumulate: Gram matrices, sketches, principal components, samples of tokens."""
