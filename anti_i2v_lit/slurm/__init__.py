"""SLURM: what a task knows of itself, signals, requeueing, and job scripts. Imports no torch."""
