"""DuckDB's views against what `drivetrain sql` gives: views.py VIEWS.sql DIRECTORY, which holds TABLE.parquet files.

Prints JSON: by table the columns (name and type) and the number of rows of both sides, and the first rows that only one
of them has, each as often as it has it more often. A table without a view has no side `view`.
"""

import json
import pathlib
import sys

import duckdb

connection = duckdb.connect()
connection.execute(pathlib.Path(sys.argv[1]).read_text())
existing = {name for (name,) in connection.execute("select view_name from duckdb_views() where not internal").fetchall()}


def side(relation):
    columns = connection.execute(f"describe select * from {relation}").fetchall()
    rows = connection.execute(f"select count(*) from {relation}").fetchone()[0]
    return {"columns": [list(column[:2]) for column in columns], "rows": rows}


def only(left, right):
    query = f"select cast(differing as varchar) from (select * from {left} except all select * from {right}) as differing limit 3"
    return [text for (text,) in connection.execute(query).fetchall()]


said = {}
for path in sorted(pathlib.Path(sys.argv[2]).glob("*.parquet")):
    table, exported = path.stem, f"read_parquet('{path}')"
    said[table] = {"sql": side(exported), "only_view": [], "only_sql": []}
    if table in existing:
        said[table]["view"] = side(table)
        said[table]["only_view"] = only(table, exported)
        said[table]["only_sql"] = only(exported, table)
print(json.dumps(said))
