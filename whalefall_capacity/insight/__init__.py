"""Arithmetic of forecasts: what grows, how fast, when a disk is full, and how good such answers were.

Pure functions, arrays in and arrays out; no store, no clock. Sizes are bytes, time is whole days. A history is a row
of sizes, one column a day, NaN where nothing was measured; the last column is the day of the forecast, and nothing
after it is looked at. docs/forecasts.md says in words what is calculated here.

Only `statuses` and `waterfall` can be imported without numpy: what loads the code location imports nothing else from
here, and the functions that calculate import the rest when they are called.
"""
