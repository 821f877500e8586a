"""Memory and passes of a probe run, before it is started."""
