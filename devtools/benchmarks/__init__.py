"""The benchmarks: `python dev.py bench`. See README.md here."""
