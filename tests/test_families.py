"""Every family that README lists keeps the contract, loaded from a file in its real format."""

import pytest
import twins

from framelens import models
from framelens.models.variants.separated import separate
from framelens.probes.check.examine import examine

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", twins.FAMILIES)
def test_a_twin_of_each_family_passes_every_check(name, tmp_path):
    path, said = twins.twin(name, tmp_path)
    checks = list(examine(models.load(path, **said)))
    assert [f"{check.name}: {check.found}" for check in checks if check.holds is False] == []
    assert sum(check.holds is True for check in checks) >= 10


@pytest.mark.parametrize("name", [name for name in twins.FAMILIES if name not in ("oasis", "scd")])
def test_a_separated_twin_of_each_family_is_saved_and_passes_every_check(name, tmp_path):
    path, said = twins.twin(name, tmp_path)
    network = models.load(path, **said)
    depth = network.geometry.layers
    made = separate(network, encoder=range(1), tail=range(1, depth), share=True)
    models.save(made, tmp_path / "separated.safetensors")
    checks = list(examine(models.load(str(tmp_path / "separated.safetensors"))))
    assert [f"{check.name}: {check.found}" for check in checks if check.holds is False] == []
    assert sum(check.holds is True for check in checks) >= 10
