-- Version 5: what became of the files that a job asked to be kept. Their bytes are in the job's spool.

CREATE TABLE artifacts (
    row INTEGER PRIMARY KEY REFERENCES jobs (row) ON DELETE CASCADE,
    list TEXT NOT NULL -- JSON
) STRICT;
