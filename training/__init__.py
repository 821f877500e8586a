"""Training from scratch: `python -m framelens.training --model dense-tiles`, resumable at any moment."""

if __name__ != "framelens.training":
    raise ImportError("this folder is the package framelens.training; use that name", name=__name__)
