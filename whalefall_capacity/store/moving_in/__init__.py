"""Moving in from WhaleFall: its history comes along, read-only there, and never over what was measured here.

What belongs to another system than WhaleFall, or to a file, is `sizes/history_import.py`.
"""
