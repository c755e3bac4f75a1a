"""The command line: options, the environment and the config file, and the commands beside the relay itself."""
