"""Small models of the real classes and layouts, with random weights: what the tests load."""
