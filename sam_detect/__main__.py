"""``python -m sam_detect`` is the ``sam-detect`` command."""

from sam_detect.cli import main

if __name__ == "__main__":
    main()
