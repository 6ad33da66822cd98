"""`python -m oaks` is the command `oaks`."""

from oaks.cli.main import main

if __name__ == "__main__":
    main()
