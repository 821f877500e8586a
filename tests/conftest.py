"""Shapes in signatures are enforced here, and cost nothing outside of tests; one thread.

The networks of these tests are smaller than the cost of sharing them out.
"""

import os

# Processes and notebooks that tests start inherit this.
os.environ["OMP_NUM_THREADS"] = "1"

import torch  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

torch.set_num_threads(1)

# The setting of beartype lets an int stand where a float is asked for, as Python's typing rules do.
# (pytest's --jaxtyping-packages cannot pass a setting to the checker.)
install_import_hook("framelens", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")
