"""What a person types: `python -m bottle_init`. See docs/cli.md."""
