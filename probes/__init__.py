"""Runs of experiments on a model, and what is asked of such runs.

    framelens probe --model dense-tiles

experiments/ has one file per experiment, chunk/ probes one chunk again and again, run/ has settings, clips,
workers and the run's folder. plan/, check/, estimate/ and latents/ are commands of their own.
"""

if __name__ != "framelens.probes":
    raise ImportError("this folder is the package framelens.probes; use that name", name=__name__)
