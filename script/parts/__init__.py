"""Functions that scripts get a copy of, when they need them. This package is read as text and never imported."""
