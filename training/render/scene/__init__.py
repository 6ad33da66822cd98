"""What is around people: background, occluders, where everybody stands, the drawing and its labels."""
