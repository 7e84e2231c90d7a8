"""Values that describe a model; they do no work."""
