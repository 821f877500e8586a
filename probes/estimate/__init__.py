"""Memory and passes of a probe run, computed before it is started."""
