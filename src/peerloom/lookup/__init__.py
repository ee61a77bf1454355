"""Find things by the names that users give them."""
