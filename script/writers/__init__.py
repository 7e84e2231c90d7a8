"""What each node is in a script: a function a node, and the one table of them."""
