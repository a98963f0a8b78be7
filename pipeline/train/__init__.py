"""Sequences to a model."""
