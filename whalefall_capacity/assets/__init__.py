"""The assets: what is kept up to date, and how."""
