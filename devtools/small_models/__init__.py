"""Small models with the real classes and layouts and random weights, for the tests."""
