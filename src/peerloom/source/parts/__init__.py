"""Sources that consist of numbered parts."""
