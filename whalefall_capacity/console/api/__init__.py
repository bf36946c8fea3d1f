"""The JSON API under /api/v1 and the models of its answers.

What is drawn for people lies in `pages`; what starts work lies in `actions`.
"""
