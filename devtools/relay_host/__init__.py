"""The real ComfyUI, in this process or as a server, its page in a browser, and a fake hub."""
