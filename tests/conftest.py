"""The fast tests enforce shapes in signatures, at no cost outside of tests; one thread; tiers of tests.

The slow tests run whole commands, which take twice as long while every call is checked. FRAMELENS_THOROUGH=1
enforces shapes there too.

The networks of these tests are smaller than the cost of sharing them out among threads. More threads are
other kernels all the same, so FRAMELENS_TEST_THREADS=2 asks for them (tests/other_kernels.sh).

    python -m pytest -m "not slow" tests      the fast tier, below two minutes on two cores
    make test                                 everything; lasts as long as the slow ones do
"""

import os

THREADS = int(os.environ.get("FRAMELENS_TEST_THREADS", "1"))
# Processes and notebooks that tests start inherit this.
os.environ["OMP_NUM_THREADS"] = str(THREADS)

import pytest  # noqa: E402
import torch  # noqa: E402
from jaxtyping import config, install_import_hook  # noqa: E402
from precision import double_precision  # noqa: E402

torch.set_num_threads(THREADS)

# The setting of beartype lets an int stand where a float is expected, as Python's typing rules do.
# (pytest's --jaxtyping-packages cannot pass a setting to the checker.)
install_import_hook("framelens", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    is_checked = item.get_closest_marker("slow") is None or bool(os.environ.get("FRAMELENS_THOROUGH"))
    config.update("jaxtyping_disable", not is_checked)
    return (yield)


@pytest.fixture(scope="session", autouse=True)
def kept_clips(tmp_path_factory):
    """The folder where clips of games are kept during the tests: an empty one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FRAMELENS_CACHE", str(folder := tmp_path_factory.mktemp("kept")))
        yield folder


@pytest.fixture
def float64(request):
    """The test, and the constants of its file, in float64 (networks/precision.py)."""
    with double_precision(request.module):
        yield


@pytest.fixture(scope="module")
def all_float64(request):
    """All tests and fixtures of a file in float64."""
    with double_precision(request.module):
        yield
