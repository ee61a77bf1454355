"""Run the command line with `python -m peerloom`."""

from peerloom.cli import main

if __name__ == "__main__":
    main()
