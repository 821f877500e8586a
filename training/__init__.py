"""Training from scratch: `python -m training --model dense-tiles`, resumable at any moment."""
