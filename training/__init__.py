"""Training of the networks: recipes, data, rendered people and training loops."""
