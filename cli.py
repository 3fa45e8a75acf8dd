"""``python cli.py …`` is ``dff …`` from a checkout."""

from dff.cli import main

if __name__ == "__main__":
    main()
