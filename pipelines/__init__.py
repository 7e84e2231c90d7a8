"""What diffusers does for the pack. Nothing in here knows of a host: no comfy, no comfy_api, no folder_paths."""
