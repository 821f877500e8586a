"""Can a probed model be separated, where, and what does it save?"""
