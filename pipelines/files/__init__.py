"""Weight files: reading, casting, sharing, and which of them a model needs."""
