-- Version 1 of the record. Never edit a migration that has been released: add the next one.
-- Times are nanoseconds since the Unix epoch, byte strings in hex are lower case.

PRAGMA application_id = 0x51434d44; -- "QCMD"

-- One row a job, the rejected ones included. It stays small: texts of any length are in the tables below.
CREATE TABLE jobs (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    controller_id TEXT NOT NULL,
    job_id TEXT NOT NULL,
    key_id TEXT,
    peer TEXT NOT NULL,
    payload_sha256 TEXT NOT NULL,
    accepted_at INTEGER NOT NULL,
    ttl INTEGER NOT NULL, -- Unix seconds, as signed
    risk_level TEXT NOT NULL,
    image TEXT NOT NULL,
    limits TEXT NOT NULL, -- JSON
    network TEXT NOT NULL,

    state TEXT NOT NULL CHECK (state IN ('queued', 'starting', 'running', 'completed', 'failed', 'rejected')),
    status TEXT NOT NULL GENERATED ALWAYS AS (
        CASE state WHEN 'queued' THEN 'pending' WHEN 'starting' THEN 'running' ELSE state END
    ) VIRTUAL,
    reason TEXT, -- why it ended; the code of a rejected one

    attempt INTEGER NOT NULL DEFAULT 0,
    container_name TEXT,
    container_id TEXT,
    image_id TEXT,
    image_digest TEXT,

    starting_at INTEGER,
    started_at INTEGER,
    deadline_at INTEGER,
    ended_at INTEGER,
    queued_ms INTEGER,
    started_ms INTEGER,
    duration_ms INTEGER,

    exit_code INTEGER,
    signal INTEGER,
    oom_killed INTEGER NOT NULL DEFAULT 0 CHECK (oom_killed IN (0, 1)),
    error TEXT,
    stdout_bytes INTEGER NOT NULL DEFAULT 0,
    stderr_bytes INTEGER NOT NULL DEFAULT 0,
    stdout_sha256 TEXT,
    stderr_sha256 TEXT,
    stdout_dropped INTEGER NOT NULL DEFAULT 0,
    stderr_dropped INTEGER NOT NULL DEFAULT 0,
    stdout_truncated INTEGER NOT NULL DEFAULT 0 CHECK (stdout_truncated IN (0, 1)),
    stderr_truncated INTEGER NOT NULL DEFAULT 0 CHECK (stderr_truncated IN (0, 1)),
    cpu_ms INTEGER,
    max_rss_bytes INTEGER,

    cancel_requested_at INTEGER,
    cancel_why TEXT CHECK (cancel_why IN ('cancel', 'drain')),
    cancel_by TEXT,
    cancel_reason TEXT,

    cleaned_at INTEGER,
    purged_at INTEGER, -- when retention removed its texts and output
    audit_entry INTEGER, -- the entry of its end
    audit_sha256 TEXT,

    CHECK ((state IN ('completed', 'failed', 'rejected')) = (ended_at IS NOT NULL)),
    CHECK (state <> 'running' OR started_at IS NOT NULL)
) STRICT;

-- The replay record: a job id that was accepted is taken for ever; a refused one is not.
CREATE UNIQUE INDEX jobs_accepted ON jobs (job_id, controller_id) WHERE state <> 'rejected';
CREATE INDEX jobs_rejected ON jobs (job_id) WHERE state = 'rejected';
-- What start-up and the sweeps look for stays small whatever the history.
CREATE INDEX jobs_unfinished ON jobs (state) WHERE state IN ('queued', 'starting', 'running');
CREATE INDEX jobs_uncleaned ON jobs (row) WHERE container_name IS NOT NULL AND cleaned_at IS NULL;
CREATE INDEX jobs_unpurged ON jobs (ended_at) WHERE ended_at IS NOT NULL AND purged_at IS NULL;
CREATE INDEX jobs_ended ON jobs (ended_at) WHERE ended_at IS NOT NULL;
-- One for every way to ask for a page, newest first.
CREATE INDEX jobs_by_time ON jobs (accepted_at);
CREATE INDEX jobs_by_status ON jobs (status, accepted_at);
CREATE INDEX jobs_by_reason ON jobs (reason, accepted_at) WHERE reason IS NOT NULL;
CREATE INDEX jobs_by_controller ON jobs (controller_id, accepted_at);
CREATE INDEX jobs_by_controller_status ON jobs (controller_id, status, accepted_at);
CREATE INDEX jobs_by_controller_reason ON jobs (controller_id, reason, accepted_at) WHERE reason IS NOT NULL;

-- What was asked for, redacted.
CREATE TABLE texts (
    row INTEGER PRIMARY KEY REFERENCES jobs (row) ON DELETE CASCADE,
    prompt TEXT NOT NULL,
    command TEXT NOT NULL,
    snapshot TEXT NOT NULL
) STRICT;

-- The exact signed bytes, until the job has ended: they may hold secrets.
CREATE TABLE payloads (
    row INTEGER PRIMARY KEY REFERENCES jobs (row) ON DELETE CASCADE,
    raw BLOB NOT NULL
) STRICT;

-- The first bytes of an ended job's output as text, redacted.
CREATE TABLE outputs (
    row INTEGER PRIMARY KEY REFERENCES jobs (row) ON DELETE CASCADE,
    stdout TEXT NOT NULL,
    stderr TEXT NOT NULL
) STRICT;

-- What remains of an accepted job whose row was deleted: its id stays taken.
CREATE TABLE spent (
    controller_id TEXT NOT NULL,
    job_id TEXT NOT NULL,
    job INTEGER NOT NULL, -- its row number
    payload_sha256 TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    PRIMARY KEY (controller_id, job_id)
) STRICT, WITHOUT ROWID;

-- Every submission, whether it was accepted or not.
CREATE TABLE submissions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    peer TEXT NOT NULL,
    controller_id TEXT, -- as claimed, where not verified
    verified INTEGER NOT NULL CHECK (verified IN (0, 1)), -- whether the MAC held
    job_id TEXT,
    outcome TEXT NOT NULL CHECK (outcome IN ('accepted', 'duplicate', 'refused')),
    code TEXT,
    details TEXT,
    payload_sha256 TEXT,
    job INTEGER -- row number of the job that was made of it, or that it repeats
) STRICT;
CREATE INDEX submissions_by_time ON submissions (at);

-- The log: entry is the canonical JSON, leaf is SHA-256(0x00 || entry) (RFC 6962, section 2.1).
CREATE TABLE audit (
    number INTEGER PRIMARY KEY CHECK (number >= 0),
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    job INTEGER, -- row number, where it is about a job
    entry BLOB NOT NULL,
    leaf BLOB NOT NULL CHECK (length(leaf) = 32)
) STRICT;
CREATE INDEX audit_by_job ON audit (job) WHERE job IS NOT NULL;
CREATE TRIGGER audit_not_changed BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
CREATE TRIGGER audit_not_removed BEFORE DELETE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;

-- The QuickCMD audit schema: what people query.
CREATE VIEW runs AS
SELECT
    jobs.row AS id,
    strftime('%Y-%m-%dT%H:%M:%fZ', jobs.accepted_at / 1000000000.0, 'unixepoch') AS timestamp,
    jobs.controller_id AS user,
    coalesce(texts.prompt, '') AS prompt,
    coalesce(texts.command, '') AS selected_command,
    coalesce(jobs.container_id, '') AS sandbox_id,
    jobs.exit_code AS exit_code,
    coalesce(outputs.stdout, '') AS stdout,
    coalesce(outputs.stderr, '') AS stderr,
    jobs.risk_level AS risk_level,
    coalesce(texts.snapshot, '') AS snapshot,
    jobs.started_at IS NOT NULL AS executed,
    jobs.duration_ms AS duration_ms
FROM jobs
LEFT JOIN texts ON texts.row = jobs.row
LEFT JOIN outputs ON outputs.row = jobs.row;
