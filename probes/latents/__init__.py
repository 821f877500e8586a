"""Videos and prompts encoded for probing, and latents decoded to videos."""
