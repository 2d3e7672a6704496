"""What runs the product as a whole to measure or show it: tables, the demo, speed and memory."""
