"""MySQL 5.7 and newer, MariaDB 10.6 and newer: sizes of InnoDB files, and of the tables of other engines.

`connection` opens a connection, `server` runs statements on it, `innodb` and `tables` read the two catalogs,
`names` and `grants` know what directories and privileges are called, and `session` makes sizes of it all.
"""

from whalefall_capacity.collection.mysql.session import MysqlSession, connect

__all__ = ["MysqlSession", "connect"]
