"""Stage 3: services, which agents call and do not own."""
