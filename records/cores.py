"""How many cores of the machine this process may use."""

import os


def usable_cores() -> int:
    """The cores that this process may use, or all of the machine where the system does not say: on macOS and
    Windows before Python 3.13."""
    count = getattr(os, "process_cpu_count", os.cpu_count)
    affinity = getattr(os, "sched_getaffinity", None)
    return (len(affinity(0)) if affinity else count()) or 1
