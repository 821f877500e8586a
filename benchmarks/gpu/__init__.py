"""What of framelens only a GPU can show: all of it in one command of a few minutes."""
