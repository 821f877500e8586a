"""What probing costs: a rollout under all statistics beside the plain rollout."""
