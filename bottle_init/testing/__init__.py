"""The harness for maintainers: the real core in a simulated kernel."""
