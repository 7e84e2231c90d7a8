"""LoRAs and textual inversions: reading their files, and using them in a model."""
