"""One thread: the networks of these tests are smaller than the cost of sharing them out."""

import os

# Processes and notebooks that tests start inherit this.
os.environ["OMP_NUM_THREADS"] = "1"

import torch  # noqa: E402

torch.set_num_threads(1)
