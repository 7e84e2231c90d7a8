"""A tiny world of coloured shapes, small models trained only on it, and a judge that recognises what they paint.

The models use diffusers' and transformers' real classes. They stand in for the published models where nothing can be downloaded.
"""
