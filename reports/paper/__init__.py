"""The figures and tables of Bai et al. 2026 (arXiv 2602.10095), one to one, from runs of ours."""
