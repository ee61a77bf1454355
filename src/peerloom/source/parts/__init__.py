"""Sources put together from numbered parts."""
