"""Downloads of hub repositories and of images by URL."""
