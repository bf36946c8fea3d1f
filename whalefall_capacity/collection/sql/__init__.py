"""Any SQL server that a file of queries describes, through SQLAlchemy."""

from whalefall_capacity.collection.sql.session import connect

__all__ = ["connect"]
