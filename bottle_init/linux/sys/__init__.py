"""Thin words for system calls, and writes that never block; nothing here knows of a bundle."""
