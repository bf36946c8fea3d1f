"""PostgreSQL 10 and newer: sizes by `pg_database_size`, WAL by `pg_ls_waldir`.

`connection` opens a connection through a `relay`, which counts what the server sends, and `server` runs statements on
it. `databases` and `folders` read what there is, with `names` as text; `survey` makes sizes of it all, `grants` knows
what gives those that are missing, `tables` reads the tables of one database, and `session` is what a visit and a
check-up use.
"""

from whalefall_capacity.collection.postgresql.session import PostgresqlSession, connect

__all__ = ["PostgresqlSession", "connect"]
