"""The commands of dev.py and what they and the tests need. Not part of the pack itself."""
