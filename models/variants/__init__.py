"""Models made from other models: with layers cut from the past, captured in graphs, recomposed."""
