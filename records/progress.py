"""Progress bars on stderr: on a terminal only, and not with -q.

for clip in progress_bar(clips, unit="clip"): ...
"""

from typing import Any

from framelens.records.notes import is_quiet


def progress_bar(iterable: Any = None, is_shown: bool = True, **options: Any) -> Any:
    """A tqdm bar; `options` are tqdm's. Nothing is printed where stderr is not a terminal."""
    from tqdm import tqdm

    return tqdm(iterable, disable=None if is_shown and not is_quiet() else True, **options)
