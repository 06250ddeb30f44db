-- The documents of tenants, in chunks, whole: texts, vectors, words. Vectorize has a copy of the vectors and nothing else. Times
-- are milliseconds since the epoch, as the caller counts them, except `visible_at`.
--
-- A chunk's number is its version's number, shifted by 20 bits, and its place in it; numbers of versions are never given again.

CREATE TABLE corpus_tenants (
    id         INTEGER PRIMARY KEY,
    tenant     TEXT    NOT NULL UNIQUE,
    generation INTEGER NOT NULL DEFAULT 0,
    -- The space of the vectors, while there are documents.
    model      TEXT,
    dimensions INTEGER,
    -- Of what is published.
    documents  INTEGER NOT NULL DEFAULT 0,
    chunks     INTEGER NOT NULL DEFAULT 0,
    words      INTEGER NOT NULL DEFAULT 0
) STRICT;

-- `state` is 0 for a version that is staged, and 1 for one that is published. Inside a transaction only, one is 2 that is to be
-- published and 3 that is to go.
CREATE TABLE corpus_versions (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    owner        INTEGER NOT NULL,
    version      TEXT    NOT NULL,
    state        INTEGER NOT NULL DEFAULT 0,
    -- What its vectors are called in Vectorize, before their places.
    vector_key   TEXT    NOT NULL UNIQUE,
    document     TEXT    NOT NULL,
    model        TEXT    NOT NULL,
    dimensions   INTEGER NOT NULL,
    staged_at    INTEGER NOT NULL,
    published_at INTEGER,
    -- When it was published, by the database's own clock, in seconds.
    visible_at   INTEGER,
    chunks       INTEGER NOT NULL DEFAULT 0,
    words        INTEGER NOT NULL DEFAULT 0,
    source       TEXT,
    title        TEXT,
    url          TEXT,
    metadata     TEXT    NOT NULL DEFAULT '{}',
    UNIQUE (owner, version)
) STRICT;

CREATE UNIQUE INDEX corpus_documents ON corpus_versions (owner, document) WHERE state = 1;
CREATE INDEX corpus_recent ON corpus_versions (owner, visible_at) WHERE state = 1;
CREATE INDEX corpus_by_state ON corpus_versions (owner, state, staged_at);

CREATE TABLE corpus_chunks (
    id     INTEGER PRIMARY KEY,
    start  INTEGER NOT NULL,
    -- How many words it has, and how each of them occurs: a JSON object of the core's numbers for that.
    length INTEGER NOT NULL,
    words  TEXT    NOT NULL,
    text   TEXT    NOT NULL,
    -- Base64 of 32-bit floats, lowest byte first.
    vector TEXT    NOT NULL
) STRICT;

-- The words of what is published.
CREATE TABLE corpus_words (
    owner  INTEGER NOT NULL,
    word   TEXT    NOT NULL,
    chunk  INTEGER NOT NULL,
    kind   INTEGER NOT NULL,
    PRIMARY KEY (owner, word, chunk)
) STRICT, WITHOUT ROWID;

-- The metadata of what is published, as filters see them: a row for each text, number, truth value or null. `value` has a letter
-- for its kind before it, and has the order of what it stands for.
CREATE TABLE corpus_fields (
    version INTEGER NOT NULL,
    name    TEXT    NOT NULL,
    value   TEXT    NOT NULL,
    PRIMARY KEY (version, name)
) STRICT, WITHOUT ROWID;

-- Vectors that Vectorize still has to forget: those at the places from `done` on, before `chunks`.
CREATE TABLE corpus_outbox (
    vector_key TEXT    NOT NULL PRIMARY KEY,
    owner      INTEGER NOT NULL,
    chunks     INTEGER NOT NULL,
    done       INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE INDEX corpus_outbox_by_owner ON corpus_outbox (owner);
