"""Records as tables and pages; imports no torch."""
