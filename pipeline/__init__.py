"""What happens to the data? One folder per stage, wired by `graph.py`."""
