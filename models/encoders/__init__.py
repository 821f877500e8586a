"""Encoders: pixels to latents and back, prompts to embeddings."""
