"""What a model is: values that carry data and do no work."""
