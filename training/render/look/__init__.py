"""What people and pictures look like: skin, faces, clothes, textures, and the camera's flaws."""
