"""Tar shards in the layout of WebDataset: building, reading, writing back."""
