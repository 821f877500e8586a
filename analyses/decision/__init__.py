"""The only place that decides: questions, checks, the verdict, and where a model can be split."""
