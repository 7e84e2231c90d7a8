"""Writes a graph as a plain diffusers script. It knows the nodes of a graph, and imports no torch and nothing of the host."""
