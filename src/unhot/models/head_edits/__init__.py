"""Edits of a head, one file a kind: small frozen classes, which act on a net and on logits, and are plain JSON."""
