"""MySQL 5.7 and newer, MariaDB 10.6 and newer: sizes of InnoDB files, and of the tables of other engines.

`connection` opens a connection (`login` answers how the server asks for the password, `wire` counts what it sends), and
`server` runs statements on it. `innodb` and `tables` read the two catalogs, `names` and `grants` know what directories
and privileges are called. `survey` makes sizes of it all, and `session` is what a visit and a check-up use.
"""

from whalefall_capacity.collection.mysql.session import MysqlSession, connect

__all__ = ["MysqlSession", "connect"]
