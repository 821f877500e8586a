"""Which networks of a comparison or benchmark stand for the paper's dense and separated model."""

FUSION = "token_concat"
"""The fusion of the paper."""


def roles_of(arms: list[str]) -> dict[str, str]:
    """`dense`: the first arm. `separated`: the first with the paper's fusion, else the second.

    ValueError for one arm alone.
    """
    dense, *others = arms
    if not others:
        raise ValueError(f"a comparison has a dense and a separated network, got {dense} only")
    fused = [arm for arm in others if arm.split()[0] == FUSION]
    return {"dense": dense, "separated": (fused or others)[0]}
