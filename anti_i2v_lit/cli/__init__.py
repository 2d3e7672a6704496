"""The command line: one verb per file; parses and calls, holds no logic."""
