"""What figures share: style, averages over clips, layers on an axis, effects of interventions."""
