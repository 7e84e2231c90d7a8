"""Folders, hub repositories and single files to PipelineComponents."""
