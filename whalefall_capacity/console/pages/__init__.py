"""The pages for people, rendered on the server: templates, charts, figures and their two languages.

What starts work lies in `actions`; what a script asks for lies in `api`.
"""
