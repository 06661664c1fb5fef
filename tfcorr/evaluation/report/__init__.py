"""A page and figures of one run, or of several side by side."""
