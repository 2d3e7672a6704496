"""Pure tensor functions: colour, frequency, quantisation, JPEG, resizing; no state, no settings."""
