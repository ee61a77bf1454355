"""Run members on Ray, which only this package imports."""
