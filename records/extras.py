"""Packages that come with an extra of framelens, and what to install where one is missing.

    with extra("families"):
        from diffusers import AutoencoderDC

setup.cfg says which packages each extra has.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class MissingPackage(ImportError, ValueError):
    """A package of an extra is not installed; a ValueError too, so that a command ends with this one line."""


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Around the import of an extra's packages. Raises MissingPackage with the command that installs them."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingPackage(
            f"{error.name} is not installed: pip install 'framelens[{name}]'", name=error.name
        ) from None
