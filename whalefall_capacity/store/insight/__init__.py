"""Forecasts, their accuracy and the anomalies of a day: calculated from the daily sizes, written, and read.

`calculate` reads histories by `histories`, asks `whalefall_capacity.insight`, and writes by `write`; these need numpy,
and are imported only when something is calculated. `read` is for whoever shows what is stored.
"""
