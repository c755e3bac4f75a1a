"""Our own servers for comparison."""
