"""Rules of every request, of the API and of the pages: hosts, sessions, roles, limits, parameters, the envelope.

No page and no answer is made here.
"""
