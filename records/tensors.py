"""Tensors as safetensors, with what they are as JSON beside them: the whole old file or the whole new one.

    write_tensors(path, safetensors.torch.save_file, {"latents": latents}, {"vae": "AutoencoderKLWan"})

The caller names the function that knows its kind of tensors: this file imports neither torch nor numpy.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from framelens.records import replace_file


def write_tensors(
    path: Path, save_file: Callable[..., object], tensors: Mapping[str, Any], about: Mapping[str, Any]
) -> Path:
    """Writes tensors by name, and `about` as JSON under `framelens` in the metadata; OSError if it cannot."""
    from safetensors import SafetensorError

    def fill(partial: Path) -> None:
        try:
            save_file(tensors, partial, metadata={"framelens": json.dumps(dict(about))})
        except SafetensorError as error:  # which hides the number of the system's error in its text
            number = re.search(r"\(os error (\d+)\)", str(error))
            if number is None:
                raise OSError(f"{path} cannot be written: {error}") from None
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None
        partial.chmod(0o644)  # safetensors makes files that only their owner can read

    return replace_file(path, fill)
