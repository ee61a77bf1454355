"""Stage 3: what agents call and never own."""
