"""Language models: one contract, several engines."""
