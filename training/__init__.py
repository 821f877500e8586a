"""Training from scratch: `framelens train --model dense-tiles`, resumable at any moment."""

if __name__ != "framelens.training":
    raise ImportError("this folder is the package framelens.training; use that name", name=__name__)
