"""Weight files: reading, casting and sharing them, and which of them a model needs."""
