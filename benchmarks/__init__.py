"""Benchmarks: `python -m benchmarks` runs the init and its peers side by side, on the same work, in one run."""
