"""An init supervisor for containers that run several daemons."""

__version__ = "0.1.0"
