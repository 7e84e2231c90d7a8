"""What comes over the network: hub repositories and pictures by URL."""
