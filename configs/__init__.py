"""What is a run? The schema of a config, how it is loaded, and the recipes."""
