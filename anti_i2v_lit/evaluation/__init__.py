"""The judge: protected folders in, tables out. It knows nothing of how a photo was protected."""
