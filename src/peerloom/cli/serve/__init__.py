"""Parts of `peerloom serve`."""
