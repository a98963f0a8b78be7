"""SavedModels that several tests call: loading one takes seconds, and what is loaded does not change."""

import functools

from lmworks.pipeline.export.servable_folder import load_servable

load_once = functools.cache(load_servable)
