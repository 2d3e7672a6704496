"""Small pretrained networks that judge pictures, and their bundled weights."""
