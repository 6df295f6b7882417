"""File formats: pictures, volumes and label tables as values, and which mask is of which image."""
