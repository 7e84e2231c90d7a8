"""Engines: what runs jobs on workers, here or on other machines."""
