"""Amounts of tokens, calls and money: estimates, prices and budgets."""
