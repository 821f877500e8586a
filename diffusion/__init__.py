"""Noise, time and sampling: tensors only, nothing about networks.

    from framelens.diffusion.sampler import rollout
    from framelens.diffusion.schedule import sigma_grid

Sigma runs from 1 (noise) to 0 (clean): x_sigma = (1 - sigma) x_0 + sigma eps, velocity = eps - x_0.
"""

if __name__ != "framelens.diffusion":
    raise ImportError("this folder is the package framelens.diffusion; use that name", name=__name__)
