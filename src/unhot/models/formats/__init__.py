"""Models as others keep them: one kind of file a module."""
