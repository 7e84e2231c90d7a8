"""Autoencoders, the latent contract, and conversion between latent spaces."""
