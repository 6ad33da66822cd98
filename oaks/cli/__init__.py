"""The command line: a file per verb. Each verb calls the library function that a Python user would call."""
