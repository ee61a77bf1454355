"""The built-in services besides language models: a module for each, with its options in `SERVICE`."""
