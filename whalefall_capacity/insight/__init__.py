"""What sizes say of days to come, and why they grew: pure functions, arrays and rows in, arrays and rows out."""
