-- The ledger: what was asked for, and what is recorded of it. Nothing here is ever incremented: counts are sums over rows
-- that are written once per chunk and attempt, so that a second delivery of a message changes nothing.
-- Times are milliseconds since the Unix epoch, UTC. Tables are WITHOUT ROWID, so that a row is one write, index included.

CREATE TABLE deletions (
    id TEXT PRIMARY KEY,
    requested_by TEXT NOT NULL,
    requested_at INTEGER NOT NULL,
    -- The end of the undo window: nothing is delivered before it.
    not_before INTEGER NOT NULL,
    -- How often its failures have been redriven.
    generation INTEGER NOT NULL DEFAULT 0,
    -- Whether what was uploaded since the request is kept: auto, always or off.
    fence TEXT NOT NULL DEFAULT 'auto',
    -- JSON: the caller's names and values.
    labels TEXT NOT NULL DEFAULT '{}',
    -- JSON: what it deletes by prefix; NULL: nothing. Its sweeps are in `sweeps`.
    prefixes TEXT,
    -- Nothing is deleted by prefix when there are more objects than this.
    max_objects INTEGER,
    -- Whether what is left under the prefixes is counted at the end, and the deleted keys are summed up for a receipt.
    verify INTEGER NOT NULL DEFAULT 0,
    -- How many keys a dry run was asked for besides prefixes; NULL: it is none.
    planned_keys INTEGER,
    -- When the caller said that these are all its parts; NULL: more may come, and it cannot end.
    sealed_at INTEGER,
    cancelled_at INTEGER,
    -- When the last key was decided; NULL again from a redrive to its end.
    finished_at INTEGER
) WITHOUT ROWID;

-- The keys of a deletion, as they were brought: those of the request itself are part 0, those that are put one part after the
-- other are parts 1, 2, …, those of a redrive are part 0 of its generation. A part's chunks are numbered from part * 1000.
CREATE TABLE parts (
    deletion TEXT NOT NULL,
    generation INTEGER NOT NULL,
    part INTEGER NOT NULL,
    -- JSON: how many keys each chunk has, in order. A message whose chunk is not in it deletes nothing.
    chunk_keys TEXT NOT NULL,
    -- None of a request that has prefixes only: its messages have sweeps begun.
    keys INTEGER NOT NULL CHECK (keys >= 0),
    duplicates_removed INTEGER NOT NULL,
    -- Tells one body from another, for a part that is put again; of a redrive the filter, as JSON.
    fingerprint TEXT,
    -- The request that brought it; its messages are in the outbox under this id.
    upload TEXT NOT NULL,
    -- Until when a request holds the sending of its messages for itself.
    sending_until INTEGER NOT NULL,
    -- When every message was stored in the Queue: only then is the caller told 202.
    enqueued_at INTEGER,
    -- When messages that seemed lost were last sent again.
    resent_at INTEGER,
    PRIMARY KEY (deletion, generation, part)
) WITHOUT ROWID;

-- What the listing walks, newest first, so that a page reads little more than what it shows. An id begins with the time,
-- so that its order is the order of the requests. None of this grows with the keys: a deletion of 100,000 keys writes 204
-- rows at least (itself and its end, its part and that it was sent, and 100 chunks twice), and for the indexes:
--   deletions_by_principal   1, with the request
--   deletions_open           2: in with the request, out with its end, be it finished or cancelled
--   deletions_cancelled      1, if it is cancelled
--   labels                   1 for each label
-- which is 3 more and the labels, at $1 per million rows $3 for a million deletions.
CREATE INDEX deletions_by_principal ON deletions (requested_by, id);
CREATE INDEX deletions_open ON deletions (id) WHERE finished_at IS NULL AND cancelled_at IS NULL;
CREATE INDEX deletions_cancelled ON deletions (id) WHERE cancelled_at IS NOT NULL;

-- The labels of all deletions, to find deletions by.
CREATE TABLE labels (
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    deletion TEXT NOT NULL,
    PRIMARY KEY (name, value, deletion)
) WITHOUT ROWID;

-- Which deletion an Idempotency-Key has made, and of which body.
CREATE TABLE idempotency_keys (
    requested_by TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    deletion TEXT NOT NULL,
    PRIMARY KEY (requested_by, idempotency_key)
) WITHOUT ROWID;

-- The messages of every deletion that is not over, as they were sent, so that sending can be finished and what the platform
-- has lost can be sent again. A row holds up to a megabyte of them: a million keys of 60 bytes take 64 rows. They are there
-- before their part is, under the id of the request that brings it, so that two requests for one part never mix; those
-- that come to nothing are removed.
CREATE TABLE outbox (
    upload TEXT NOT NULL,
    -- The part that they are meant for; a request brings at most one to each deletion.
    deletion TEXT NOT NULL,
    generation INTEGER NOT NULL,
    part INTEGER NOT NULL,
    piece INTEGER NOT NULL,
    -- The number of the first message's chunk.
    first_chunk INTEGER NOT NULL,
    -- The messages, one a line: JSON has no line break of its own.
    messages TEXT NOT NULL,
    PRIMARY KEY (upload, deletion, piece)
) WITHOUT ROWID;

-- One row for each chunk that a consumer has begun; a chunk without one is queued. Sweep n of a deletion is chunk
-- 2,000,000 + n of its generation 0: its keys grow as it lists them.
CREATE TABLE chunks (
    deletion TEXT NOT NULL,
    generation INTEGER NOT NULL,
    chunk INTEGER NOT NULL,
    keys INTEGER NOT NULL CHECK (keys >= 0),
    -- The claim: the invocation that may delete this chunk's keys, and until when. NULL and 0: nobody.
    claimed_by TEXT,
    claimed_until INTEGER NOT NULL,
    begun_at INTEGER NOT NULL,
    deleted INTEGER NOT NULL DEFAULT 0,
    skipped INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    -- JSON ranges of the positions that are undecided; NULL: all of them, nothing is recorded yet.
    undecided TEXT,
    -- R2's code of the error that left them so; 0 when R2 gave none, NULL when R2 was not the cause.
    last_r2_code INTEGER,
    -- The digest of the keys deleted (protocol/src/digest.rs), where the deletion is verified.
    digest TEXT,
    recorded_at INTEGER,
    finished_at INTEGER,
    PRIMARY KEY (deletion, generation, chunk),
    CHECK (deleted + skipped + failed <= keys),
    CHECK (finished_at IS NULL OR deleted + skipped + failed = keys)
) WITHOUT ROWID;

-- One row for each range of keys that is swept: one for each prefix of a deletion, and more when it is divided, so that
-- several consumers work side by side. A page of objects costs it one write, and its chunk another.
CREATE TABLE sweeps (
    deletion TEXT NOT NULL,
    sweep INTEGER NOT NULL,
    -- JSON: prefix, after, until. The ranges of a deletion have no key in common.
    range TEXT NOT NULL,
    -- count, delete or verify. All of a deletion are in the same, but those that are over.
    phase TEXT NOT NULL,
    -- How often it was handed on: a message of another step asks for nothing.
    step INTEGER NOT NULL DEFAULT 0,
    -- When it is to go on; NULL: when the keys of its deletion are all decided. A message in the Queue sees to it; upkeep sends
    -- another when that seems lost.
    due_at INTEGER,
    -- JSON: the last key listed, and the keys of the page at hand that nothing is decided about.
    progress TEXT NOT NULL DEFAULT '{}',
    -- What has been counted in the phases count and verify: objects that are older than the request, and those that are not.
    objects INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    uploaded_since INTEGER NOT NULL DEFAULT 0,
    oldest_at INTEGER,
    newest_at INTEGER,
    -- JSON: a few of the keys counted.
    sample TEXT,
    -- When its phase ended, and when its last one did.
    ended_at INTEGER,
    finished_at INTEGER,
    PRIMARY KEY (deletion, sweep)
) WITHOUT ROWID;

-- One row for each key that ended undeleted; and for each prefix that could not be swept to its end.
CREATE TABLE failures (
    deletion TEXT NOT NULL,
    generation INTEGER NOT NULL,
    chunk INTEGER NOT NULL,
    position INTEGER NOT NULL,
    -- The key as a JSON string, quotes and escapes included, so that every byte of it survives.
    key_json TEXT NOT NULL,
    code TEXT NOT NULL,
    r2_code INTEGER,
    attempts INTEGER NOT NULL,
    failed_at INTEGER NOT NULL,
    PRIMARY KEY (deletion, generation, chunk, position)
) WITHOUT ROWID;

-- One row for each key that was left alone, because its object was uploaded after the request.
CREATE TABLE skips (
    deletion TEXT NOT NULL,
    generation INTEGER NOT NULL,
    chunk INTEGER NOT NULL,
    position INTEGER NOT NULL,
    -- As in `failures`.
    key_json TEXT NOT NULL,
    -- When the object was uploaded that was found there.
    uploaded_at INTEGER NOT NULL,
    skipped_at INTEGER NOT NULL,
    PRIMARY KEY (deletion, generation, chunk, position)
) WITHOUT ROWID;

-- The completion notices that are owed for deletions that ended, and those that were given up; one that was delivered is
-- gone. It is written with the end itself, and costs a deletion 2 rows.
CREATE TABLE notices (
    deletion TEXT NOT NULL,
    -- The generation that ended.
    generation INTEGER NOT NULL,
    -- How often it was tried.
    attempts INTEGER NOT NULL DEFAULT 0,
    -- When it is tried next. A message in the Queue sees to it; upkeep sends another when that seems lost.
    due_at INTEGER NOT NULL,
    -- When it was given up.
    failed_at INTEGER,
    PRIMARY KEY (deletion, generation)
) WITHOUT ROWID;

-- Messages that no chunk could be read from, with their bodies.
CREATE TABLE unreadable_messages (
    message_id TEXT PRIMARY KEY,
    queue TEXT NOT NULL,
    reason TEXT NOT NULL,
    body TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    received_at INTEGER NOT NULL
) WITHOUT ROWID;
