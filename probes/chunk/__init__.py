"""One chunk of a clip, probed again and again: its past, its layers, edits, and what they changed."""
