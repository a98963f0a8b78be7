"""A servable to a version of a model in Vertex AI's registry."""
