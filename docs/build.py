"""make docs: the documents as a site in build/site, with every link checked.

The documents stay where readers of the repository look for them; a copy with the same folders is what mkdocs
reads, so that their links hold in both places.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "build" / "pages"
SHOWN = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "CITATION.cff",
    "LICENSE",
    "models/README.md",
    "models/adapter_template.py",
)
FOLDERS = {"docs": "*.md", "reports/gallery": "*.png"}


def collect() -> Path:
    """Copies all documents and their pictures to build/pages."""
    shutil.rmtree(PAGES, ignore_errors=True)
    files = [ROOT / name for name in SHOWN]
    files += [file for folder, pattern in FOLDERS.items() for file in (ROOT / folder).rglob(pattern)]
    for file in files:
        copy = PAGES / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    return PAGES


def main() -> int:
    """Exit status of mkdocs: not 0 where a link leads nowhere."""
    collect()
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    return subprocess.run(command, cwd=ROOT, env=quiet).returncode


if __name__ == "__main__":
    sys.exit(main())
