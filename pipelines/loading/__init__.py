"""Loads folders, hub repositories and single files as PipelineComponents."""
