"""`python -m claimhouse` is the command line."""

from claimhouse.cli import main

if __name__ == "__main__":
    main()
