"""One module a model family: the calls of its diffusers pipelines."""
