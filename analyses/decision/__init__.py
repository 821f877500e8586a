"""The only place that decides: questions, their answers, the verdict, and where a model can be split."""
