-- Version 6: what everybody waits for, the writer's work for a submission, becomes a third.

-- For every statement that has to evaluate it, SQLite makes a table of a list of three or more. The same rules,
-- spelled without lists. A CHECK is no part of what is stored: the rows stay as they are
-- (https://www.sqlite.org/lang_altertable.html, section 8).
PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = replace(replace(sql,
    'CHECK (state IN (''queued'', ''starting'', ''running'', ''completed'', ''failed'', ''rejected''))',
    'CHECK (state = ''queued'' OR state = ''starting'' OR state = ''running'' OR state = ''completed'' OR state = ''failed'' OR state = ''rejected'')'),
    'CHECK ((state IN (''completed'', ''failed'', ''rejected'')) = (ended_at IS NOT NULL))',
    'CHECK ((state = ''completed'' OR state = ''failed'' OR state = ''rejected'') = (ended_at IS NOT NULL))')
WHERE type = 'table' AND name = 'jobs';
UPDATE sqlite_schema SET sql = replace(sql,
    'CHECK (outcome IN (''accepted'', ''duplicate'', ''refused''))',
    'CHECK (outcome = ''accepted'' OR outcome = ''duplicate'' OR outcome = ''refused'')')
WHERE type = 'table' AND name = 'submissions';
PRAGMA writable_schema = RESET;

-- A job that waits is in four indexes of its table, not in six: those by status hold ended jobs only. The others,
-- which are few, are found by their state.
DROP INDEX jobs_by_status;
DROP INDEX jobs_by_controller_status;
DROP INDEX jobs_unfinished;
CREATE INDEX jobs_by_status ON jobs (status, accepted_at) WHERE ended_at IS NOT NULL;
CREATE INDEX jobs_by_controller_status ON jobs (controller_id, status, accepted_at) WHERE ended_at IS NOT NULL;
CREATE INDEX jobs_unfinished ON jobs (state, accepted_at) WHERE ended_at IS NULL;
