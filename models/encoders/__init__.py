"""Video and text encoders: what turns pixels into latents and prompts into embeddings, and back."""
