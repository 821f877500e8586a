"""`check` and `probe` agree: what check lets pass is probed, and what it does not let pass is not."""

import os

import pytest
import variants

from framelens.probes.__main__ import main as probe_main
from framelens.probes.check.__main__ import main as check_main
from framelens.records.plan import FILE
from framelens.reports.__main__ import main as reports_main

pytestmark = pytest.mark.slow

MODEL = f"{variants.__file__}:load"
SMALL = "--quick --clips 1 --frames 3 --context 2 --steps 2 --probed 1 --workers 1 --run trial".split()


def check(name, capsys):
    """The exit status of check and what it printed."""
    status = check_main(["--model", MODEL, "--set", f"kind={name}"])
    return status, capsys.readouterr().out


def probe(name, folder, capsys):
    """The exit status of a small whole run, whether its plan is there, and the last line that it printed."""
    status = probe_main(["--model", MODEL, "--set", f"kind={name}", *SMALL, "--out", str(folder)])
    said = capsys.readouterr().err.strip().splitlines()
    return status, bool(list(folder.rglob(FILE))), said[-1] if said else ""


NAMES = [*variants.SOUND, *variants.BROKEN]
SEPARATED = [name for name in NAMES if name.startswith("separated")]
IN_SHORT = {"separated, prefix, asking", "separated, residual, asking", "separated, token_concat"}
"""Of the separated networks. FRAMELENS_THOROUGH=1 takes all of them, which lasts minutes longer."""
if not os.environ.get("FRAMELENS_THOROUGH"):
    NAMES = [name for name in NAMES if name not in SEPARATED or name in IN_SHORT]


@pytest.mark.parametrize("name", NAMES)
def test_what_check_lets_pass_is_probed_and_the_other_way_round(name, tmp_path, capsys):
    checked, found = check(name, capsys)
    assert (checked == 0) == (name in variants.SOUND), found
    probed, is_planned, error = probe(name, tmp_path, capsys)
    assert (probed, is_planned) == ((0, True) if checked == 0 else (2, False)), error
    assert checked == 0 or error.startswith("framelens probe: ")
    assert name != "batch doubled inside" or ("rows" in error and "rows for 1 clip" in found)
    if name == "the past carried in the pass":  # its stream has other tokens than the frame
        assert_gets_a_page(tmp_path)


def assert_gets_a_page(folder):
    """The run in that folder is drawn, with a page and the picture of the frame's own tokens."""
    (manifest,) = folder.rglob("manifest.json")
    assert reports_main(["--run", str(manifest.parent), "--out", str(folder / "figures")]) == 0
    assert (manifest.parent / "page.html").exists() and list(folder.rglob("pca.png"))
