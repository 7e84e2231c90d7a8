"""The real ComfyUI in a process or as a server, its page in a browser, and a stand-in for the hub."""
