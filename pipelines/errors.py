"""The pack's own error: its text is what the user reads in the node."""


class RelayError(ValueError):
    """Says what was attempted, the value, and what is allowed or what to do."""
