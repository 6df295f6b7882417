"""`python -m promptseg` is the command line."""

from promptseg.cli import main

if __name__ == "__main__":
    main()
