"""A model to figures, and to a blessing or not."""
