"""The nodes that ComfyUI sees, one thin class each. The work is in the sister packages, which do not depend on ComfyUI."""
