"""A custom node pack only for the demo: tells the user on the page that the models are stand-ins."""

NODE_CLASS_MAPPINGS: dict[str, type] = {}
WEB_DIRECTORY = "./web"
