"""One function a command of the command line, with the signature of the Python call."""
