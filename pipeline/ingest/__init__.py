"""Raw files to typed, split, counted examples."""
