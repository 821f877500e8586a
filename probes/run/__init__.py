"""A probe run: settings, clips, networks, workers, and the folder that holds its results."""
