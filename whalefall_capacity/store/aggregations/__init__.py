"""Windows of days: calculated from the daily sizes, compared with the window before, recomputed as a check.

The table partitions that it writes to are made below; sealing a window for good is `maintenance`.
"""
