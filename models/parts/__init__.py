"""What networks are made of: blocks, stacks, caches, histories, text, fusion."""
