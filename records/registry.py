"""A folder that is a registry: each of its public files or packages is one entry, found by its name.

worlds = Registry(__name__, "world")      # in videos/worlds/__init__.py
worlds.names()                            # ["digits", "tiles"]
worlds.load("tiles")                      # the module
"""

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType


@dataclass(frozen=True)
class Registry:
    """The entries of the package called `package`. A file whose name starts with `_` is not an entry."""

    package: str
    kind: str
    """What one entry is called in messages, for example "experiment"."""
    besides: frozenset[str] = frozenset()
    """Public files and packages of the folder that are not entries."""

    def names(self) -> list[str]:
        """The names of all entries in alphabetical order. Nothing is imported."""
        files = [path.stem for path in self._folder.glob("*.py")]
        packages = [path.parent.name for path in self._folder.glob("*/__init__.py")]
        return sorted(name for name in {*files, *packages} - self.besides if not name.startswith("_"))

    def load(self, name: str) -> ModuleType:
        """The module of that entry. An unknown name raises ValueError with the names that exist."""
        if name not in self.names():
            raise ValueError(f"no {self.kind} is called {name!r}; there are {', '.join(self.names())}")
        return importlib.import_module(f"{self.package}.{name}")

    @property
    def _folder(self) -> Path:
        found = importlib.util.find_spec(self.package)
        assert found is not None and found.origin is not None, self.package
        return Path(found.origin).parent
