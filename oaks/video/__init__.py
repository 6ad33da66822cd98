"""Video: frames in, poses and tracks out."""
