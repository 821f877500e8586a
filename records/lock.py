"""One writer at a time for a folder or a file of results, and what a killed writer left there.

    with hold_folder(out / "dense-tiles" / "default"):      # ValueError where another process holds it
        remove_stale_files(out / "dense-tiles" / "default")

The system releases the lock of a process that ends, however it ends. Imports nothing heavy.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system without locks answers."""
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR)
"""Why no file can be made beside a folder: it may not be, or part of the path is a file."""
PARTIAL = re.compile(r"\.(\d+)\.(.+)")
"""The name of a temporary file of `framelens.records.replace_file`: a dot, the process, a dot, the name."""


@contextmanager
def hold_folder(folder: Path, another: str = "--run gives another name") -> Iterator[None]:
    """Within it, no other process holds the folder, which need not exist; it may also be one file.

    ValueError where another process holds it; the message ends with `another`. Has no effect on Windows, on
    file systems without locks, and where neither the folder nor a file beside it can be written.
    """
    folder = Path(os.path.realpath(folder))
    file = folder.with_name(f".{folder.name}.lock")
    created = [above for above in file.parents if not above.exists()]
    try:
        descriptor = _open_locked(file)
    except BlockingIOError:
        raise ValueError(
            f"{folder} is being written by {_holder(file)}: wait until it ends, or stop it; {another}"
        ) from None
    except OSError as error:
        if error.errno not in NOT_WRITABLE or os.access(folder, os.W_OK):
            raise
        descriptor = None
    try:
        yield
    finally:
        if descriptor is not None:
            file.unlink(missing_ok=True)
            os.close(descriptor)
            _remove_empty(created)


def remove_stale_files(folder: Path, name: str = "") -> None:
    """Removes the temporary files of dead processes from a folder: those of every file, or of one `name`."""
    for file in folder.glob(".*"):
        partial = PARTIAL.fullmatch(file.name)
        if partial and name in ("", partial[2]) and file.is_file() and not _is_alive(int(partial[1])):
            file.unlink(missing_ok=True)


def _open_locked(file: Path) -> int | None:
    """The descriptor of the locked file, which holds this process's number; None where there are no locks.

    BlockingIOError where another process has locked it.
    """
    if fcntl is None:
        return None
    file.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_file(descriptor, file):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, str(os.getpid()).encode())
                return descriptor
        except OSError as error:
            os.close(descriptor)
            if error.errno in UNSUPPORTED:
                return None
            raise
        os.close(descriptor)  # its holder removed it after it was opened here


def _remove_empty(folders: list[Path]) -> None:
    """Removes folders, innermost first, up to the first that holds something."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _is_file(descriptor: int, file: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def _holder(file: Path) -> str:
    """The process that holds a lock, in words."""
    try:
        return f"process {int(file.read_text())}"
    except (OSError, ValueError):
        return "another process"


def _is_alive(process: int) -> bool:
    """Whether a process of that number runs; True where this cannot be determined."""
    if os.name == "nt":  # there, signal 0 is Ctrl-C
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
