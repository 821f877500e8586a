"""Encodes videos and prompts for probing, and decodes latents to videos."""
