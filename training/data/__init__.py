"""Training data: sources of people and images, sampling, augmentation and packing."""
