"""The same ComfyUI workflow file over many rows: reading, planning and checking."""
