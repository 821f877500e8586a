"""Models made from other models: layers cut off from the past, steps captured in graphs, recomposed."""
