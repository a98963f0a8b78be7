"""A servable to a version in a model repository of TensorFlow Serving."""
