"""The same ComfyUI workflow file over many rows."""
