"""What a person types: `python3 -I -m bottle_init`. See docs/cli.md."""
