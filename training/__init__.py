"""Training from scratch: `python -m framelens.training --model dense-tiles`, resumable at any moment."""
