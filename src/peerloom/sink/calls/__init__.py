"""The calls that turns make of models, in rows."""
