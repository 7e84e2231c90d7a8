"""Text to embeddings: prompt syntaxes, and the encoders that follow them."""
