"""What the released code of FAR and SCD does beside its networks."""

import numpy as np

from framelens.diffusion.schedule import Sampling

STEPS, LAST = 50, 0.001
SAMPLING = Sampling(STEPS, levels=tuple(np.linspace(1, LAST, STEPS).tolist()))
"""Their sampler is diffusers' FlowMatchEulerDiscreteScheduler: even levels of which the last is not 0, so the
last step is shorter than the others."""
