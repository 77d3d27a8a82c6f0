"""Edits of a head, one file for each kind: frozen classes that act on a net and on logits, and are stored as JSON."""
