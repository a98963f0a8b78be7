"""A blessed model to a servable that proves itself."""
