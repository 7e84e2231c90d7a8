"""The benchmarks: `python dev.py bench`. See README.md in this folder."""
