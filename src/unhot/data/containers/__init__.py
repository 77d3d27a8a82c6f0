"""What keeps images: one file a kind, each of which reads a path as ``Contents``; ``listed.py`` tells them apart."""
