"""A pack of the demo alone: says on the page that its models are stand-ins."""

NODE_CLASS_MAPPINGS: dict[str, type] = {}
WEB_DIRECTORY = "./web"
