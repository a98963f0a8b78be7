"""Examples to token sequences."""
