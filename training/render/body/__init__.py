"""The people: bones and their limits, poses and motion, the body's shape as a mesh."""
