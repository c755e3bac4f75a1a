"""What the relay keeps: params, and all that hangs on an address."""
