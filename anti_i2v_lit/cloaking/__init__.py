"""HOW a photo changes: the one loop, its optimiser, its draws, and the gate."""
