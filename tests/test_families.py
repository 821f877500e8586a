"""Every family that README lists keeps the contract, loaded from a file in its real format."""

import pytest
import twins

from framelens import models
from framelens.probes.check.examine import examine

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", twins.FAMILIES)
def test_a_twin_of_each_family_passes_every_check(name, tmp_path):
    path, said = twins.twin(name, tmp_path)
    checks = list(examine(models.load(path, **said)))
    assert [f"{check.name}: {check.found}" for check in checks if check.holds is False] == []
    assert sum(check.holds is True for check in checks) >= 10
