"""One chunk of a clip, generated many times: its past, its layers, edits, and what they changed."""
