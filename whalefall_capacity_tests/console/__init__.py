"""The console: API, pages, security."""
