"""Training: the paper's two networks, their data, rendered people, and recipes."""
