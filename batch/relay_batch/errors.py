"""The errors that a user of relay-batch sees."""


class BatchError(Exception):
    """What was attempted, the value, and what to do, in one or two lines."""


class UnreadableWorkflow(BatchError):
    """The workflow file can't be read, or a node in it can't be converted."""


class BadAddress(BatchError):
    """An address names no input, or several."""


class BadValue(BatchError):
    """A value that the node's input does not take."""


class BadTable(BatchError):
    """A table or a folder of pictures that can't be read as rows."""


class BadPicture(BatchError):
    """A picture that is missing, truncated, or no picture."""


class BadOutput(BatchError):
    """An output folder that belongs to another run, or whose files are not what its records say."""


class HostFailed(BatchError):
    """A worker's ComfyUI can't be started."""


class RowFault(BatchError):
    """A row's own fault: it is recorded, and the row does not run again by itself."""
