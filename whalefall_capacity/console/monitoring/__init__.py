"""Answers for whatever watches the pipeline from outside: is it alive, is it ready, and its figures for Prometheus.

None of it may wait for what it asks about: each look has a thread of its own and a time limit.
"""
