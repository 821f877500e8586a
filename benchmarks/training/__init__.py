"""A training step of a separated network against one of a dense network: framelens bench training."""
