"""Cost cards, then timings: ratios from one run, medians of interleaved arms."""

if __name__ != "framelens.benchmarks":
    raise ImportError("this folder is the package framelens.benchmarks; use that name", name=__name__)
