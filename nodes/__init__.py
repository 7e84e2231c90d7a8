"""What the host sees: one thin class a node. The work is in the sister packages, which know no host."""
