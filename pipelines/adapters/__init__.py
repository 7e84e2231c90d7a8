"""What teaches a model more: LoRAs and textual inversions."""
