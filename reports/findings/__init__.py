"""The two findings of the paper in words, for one run."""
