"""Files of models that others wrote, one module for each kind."""
