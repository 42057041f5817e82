"""Builds rows and prints how many seconds it took: python3 rows.py ROWS."""

import sys
import time

print("ready", flush=True)
sys.stdin.readline()
start = time.perf_counter()
rows = [
    {"id": i, "name": f"name {i}", "values": [i, i * 1.5, str(i)]} for i in range(int(sys.argv[1]))
]
print(time.perf_counter() - start, flush=True)
sys.stdin.readline()
