"""Text to embeddings: prompt syntaxes, and encoders that apply their weights."""
