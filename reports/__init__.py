"""Figures and one page per run, drawn from the files of the run. Nothing in this package imports torch.

    python -m framelens.reports --run runs/dense-tiles/default

plots/ has one file per figure, page/ writes the page, findings/ words the findings, drawing/ is what figures
share.
"""
