"""The pure core: `begin`, `step`, `next_deadline_ms`. It touches nothing; see `supervisor.py`."""
