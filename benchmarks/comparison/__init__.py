"""The benchmark `all`: Peerloom and other systems take turns at the same work; one table shows all."""
