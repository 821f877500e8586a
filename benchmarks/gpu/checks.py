"""Whether the device computes what a CPU computes: kernels of attention, rollouts, the tests marked gpu."""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

import torch
from torch import Tensor

import framelens
from framelens.benchmarks.gpu.readings import CannotMeasure, Reading
from framelens.benchmarks.gpu.sizes import DaySizes
from framelens.diffusion.sampler import rollout
from framelens.diffusion.schedule import sigma_grid
from framelens.hooks.attention import self_test
from framelens.models.variants.fetch_once import fetch_once
from framelens.records import ROOT, is_checkout

KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SHIPPED = ("dense-tiles", "scd-tiles")
FRAMES, STEPS = 4, 5
NEAR = "one draw of noise; a share of the largest value; float32 is expected below 1e-3"
TESTS = ROOT / "tests"
MARK, COMPILED = "pytest.mark.gpu", "compile"


def test_kernels(sizes: DaySizes) -> list[Reading]:
    """Whether the attention kernels pass their self-test, by dtype."""
    readings = []
    for dtype in KERNEL_DTYPES:
        try:
            self_test(sizes.device, dtype)
            outcome = "passed"
        except RuntimeError as error:
            outcome = f"failed: {error}"
        readings.append(
            Reading(
                f"attention kernels, {str(dtype).removeprefix('torch.')}",
                outcome,
                beside="log-normalisers, masses, outputs against float64",
            )
        )
    return readings


def compare_rollouts(sizes: DaySizes) -> list[Reading]:
    """How far rollouts on the device are from those on a CPU, for shipped models."""
    readings = []
    for name in SHIPPED:
        exact = _roll_out(name, "cpu", "float32")
        for dtype in dict.fromkeys(("float32", sizes.dtype)):
            difference = _relative(_roll_out(name, sizes.device, dtype), exact)
            readings.append(Reading(f"{name}, {dtype} against the CPU", difference, beside=NEAR))
    exact = _roll_out(SHIPPED[0], "cpu", "float32", is_fetched_once=True)
    difference = _relative(_roll_out(SHIPPED[0], sizes.device, "float32", is_fetched_once=True), exact)
    return [*readings, Reading(f"{SHIPPED[0]} with the past fetched once, float32", difference, beside=NEAR)]


def _roll_out(name: str, device: str, dtype: str, is_fetched_once: bool = False) -> Tensor:
    """A free-running clip of the shipped model from fixed noise."""
    model = framelens.load(name, device=device, dtype=dtype)
    g = model.geometry
    shape = (1, FRAMES, g.channels, g.height, g.width)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    actions = torch.zeros(1, FRAMES, dtype=torch.long, device=device)
    model = fetch_once(model) if is_fetched_once else model
    return rollout(model, noise, sigma_grid(STEPS), actions).float().cpu()


def _relative(video: Tensor, exact: Tensor) -> float:
    return float((video - exact).abs().max() / exact.abs().max())


def run_tests(sizes: DaySizes, keyword: str) -> list[Reading]:
    """How many of the tests marked gpu passed, of those whose names fit the expression for `pytest -k`."""
    if sizes.is_rehearsal and keyword == COMPILED:
        raise CannotMeasure("a rehearsal does not compile")
    if not is_checkout():
        raise CannotMeasure("the tests are in the repository only, not in the installed package")
    files = [path for path in sorted(TESTS.glob("test_*.py")) if MARK in path.read_text(encoding="utf-8")]
    files = files[:1] if sizes.is_rehearsal else files
    with TemporaryDirectory() as folder:
        report = Path(folder) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", "-k", keyword]
        command += [f"--junitxml={report}", *map(str, files)]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        print(done.stdout, done.stderr)
        if not report.exists():
            raise CannotMeasure(f"pytest ended with status {done.returncode} and no report")
        return _count(report)


def _count(report: Path) -> list[Reading]:
    counts = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        counts = {name: count + int(suite.get(name, 0)) for name, count in counts.items()}
    passed = counts["tests"] - sum(count for name, count in counts.items() if name != "tests")
    counts = {"passed": passed} | {name: count for name, count in counts.items() if name != "tests"}
    return [Reading(f"tests marked gpu: {name}", count) for name, count in counts.items()]
