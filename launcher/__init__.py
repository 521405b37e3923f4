"""Starts a bottle: one agent in a container whose only way out is the bundle of daemons beside it."""
