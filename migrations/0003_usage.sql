-- Version 3: what the jobs of each controller have used on each day, for daily quotas.

CREATE TABLE usage (
    day INTEGER NOT NULL, -- of UTC, days since 1970-01-01
    controller_id TEXT NOT NULL,
    cpu_ms INTEGER NOT NULL,
    output_bytes INTEGER NOT NULL, -- recorded bytes of both streams
    PRIMARY KEY (day, controller_id)
) STRICT, WITHOUT ROWID;
