"""Figures and one page per run, drawn from the files of the run. Nothing in this package imports torch.

    framelens figures --run runs/dense-tiles/default

plots/ has one file per figure, paper/ draws the figures and tables of Bai et al. 2026, page/ writes the page,
findings/ words the findings, drawing/ is what figures share.
"""

if __name__ != "framelens.reports":
    raise ImportError("this folder is the package framelens.reports; use that name", name=__name__)
