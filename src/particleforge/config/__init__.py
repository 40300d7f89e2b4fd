"""Configuration: pydantic models, one module per block.

``load`` reads and merges YAML, ``settings`` slices it per stage.
"""
