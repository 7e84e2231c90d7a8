"""Shared by all rooms: errors, progress, images, and results that are kept between runs."""
