"""One module per model family, with the calls of its diffusers pipelines."""
