"""Where people to learn from come from, and how they become samples."""
