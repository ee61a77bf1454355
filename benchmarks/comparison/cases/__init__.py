"""The cases of the comparison: each module has `cases(scope)`, which returns one or several."""
