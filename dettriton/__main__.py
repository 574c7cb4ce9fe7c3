"""``python -m dettriton``: the command line, for where no script is on the path."""

from dettriton.cli import main

if __name__ == "__main__":
    main()
