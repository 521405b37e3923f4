"""What draws parts of the documentation from the code."""
