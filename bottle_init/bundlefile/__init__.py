"""The text of a bundle file and what it means: `document.parse`. See docs/bundle-file.md."""
