-- Version 4: bearer tokens, by the hash of their text.

CREATE TABLE tokens (
    id TEXT PRIMARY KEY, -- the first 16 digits of the hash
    digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32), -- SHA-256 of the token, 256 bits of which are random
    name TEXT,
    controller_id TEXT, -- the one that it is for; null: all
    scopes TEXT NOT NULL, -- between spaces
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    revoked_at INTEGER,
    last_used_at INTEGER -- to a minute
) STRICT;
