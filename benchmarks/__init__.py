"""Cost cards, then timings: ratios from one run, medians of interleaved arms."""
