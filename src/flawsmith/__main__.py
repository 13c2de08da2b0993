"""`python -m flawsmith`."""

from flawsmith.cli import main

if __name__ == "__main__":
    main()
