"""Where modules run: offloading, streaming, memory."""
