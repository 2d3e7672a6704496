"""Photos in and out: folders, decoding, the photo's own colour space, encoding."""
