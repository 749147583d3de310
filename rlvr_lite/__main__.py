"""``python -m rlvr_lite``."""

from rlvr_lite.cli import main

if __name__ == "__main__":
    main()
