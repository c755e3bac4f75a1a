"""``python -m clasp_relay``, the same as ``clasp-relay``; a file of its own because Python looks for this name."""

from clasp_relay.cli import main

if __name__ == "__main__":
    main()
