"""A tiny world of coloured shapes, small models that are trained on nothing else, and a judge that sees what they paint.

The models are of diffusers' and transformers' real classes. They stand in for the published ones where nothing can be downloaded.
"""
