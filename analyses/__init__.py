"""Statistics, decisions and intervals; no models and no plots.

statistics/ has one file per streaming statistic, sums/ what they accumulate, decision/ the questions that are
asked of a run and the verdict that follows. The files here hold plain functions (`intervals.mean_interval`).
"""

if __name__ != "framelens.analyses":
    raise ImportError("this folder is the package framelens.analyses; use that name", name=__name__)
