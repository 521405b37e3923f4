"""From a bundle file to a `Bundle`: `load.from_file`. See docs/bundle-file.md."""
