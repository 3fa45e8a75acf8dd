"""``python -m dff …`` is ``dff …``."""

from dff.cli import main

if __name__ == "__main__":
    main()
