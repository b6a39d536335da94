#!/usr/bin/env python3
"""A second client beside somebody who holds connections: each request on a connection of its own, from another address.

    second_client.py PORT CA SECONDS     prints {"requests", "failed", "p50_ms", "p99_ms"}
"""

import http.client
import json
import ssl
import sys
import time

port, ca, seconds = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
context = ssl.create_default_context(cafile=ca)
took, failed = [], 0
end = time.monotonic() + seconds
while time.monotonic() < end:
    start = time.monotonic()
    try:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=30, context=context, source_address=("127.0.0.2", 0)
        )
        connection.request("GET", "/live")
        failed += connection.getresponse().read() != b'{"status":"live"}'
        connection.close()
    except OSError as error:
        failed += 1
        print(f"a request failed: {error}", file=sys.stderr)
    took.append((time.monotonic() - start) * 1000)
    time.sleep(0.02)
took.sort()
shown = {
    "requests": len(took),
    "failed": failed,
    "p50_ms": round(took[len(took) // 2], 1),
    "p99_ms": round(took[min(len(took) - 1, len(took) * 99 // 100)], 1),
}
print(json.dumps(shown))
