"""The example workflows: their descriptions (guide.py), and what lays a description out on the page (sheet.py)."""
