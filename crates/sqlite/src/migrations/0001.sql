-- The first schema. Every primary key begins with the tenant; times are milliseconds since the epoch; ids are UUIDs of 16 bytes.

CREATE TABLE session (
    tenant        TEXT    NOT NULL,
    session       BLOB    NOT NULL,
    user          TEXT    NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    next_seq      INTEGER NOT NULL,
    message_count INTEGER NOT NULL,
    token_count   INTEGER NOT NULL,
    -- No message of the session is older than this; it may be earlier than the oldest one.
    oldest_at     INTEGER NOT NULL,
    PRIMARY KEY (tenant, session)
) STRICT, WITHOUT ROWID;

-- With a rowid: its rows are large, and a table without one would keep them in the inner nodes of its tree.
-- The content comes last, so that the other columns are read without following its overflow pages.
CREATE TABLE message (
    tenant    TEXT    NOT NULL,
    session   BLOB    NOT NULL,
    seq       INTEGER NOT NULL,
    id        BLOB    NOT NULL,
    role      TEXT    NOT NULL,
    at        INTEGER NOT NULL,
    tokens    INTEGER,
    truncated INTEGER NOT NULL,
    content   TEXT    NOT NULL,
    PRIMARY KEY (tenant, session, seq),
    FOREIGN KEY (tenant, session) REFERENCES session (tenant, session)
) STRICT;

CREATE TABLE session_index (
    tenant        TEXT    NOT NULL,
    session       BLOB    NOT NULL,
    user          TEXT    NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    message_count INTEGER NOT NULL,
    token_count   INTEGER NOT NULL,
    PRIMARY KEY (tenant, session)
) STRICT, WITHOUT ROWID;

CREATE INDEX session_index_by_time ON session_index (tenant, updated_at DESC, session);
CREATE INDEX session_index_by_user ON session_index (tenant, user, updated_at DESC, session);

CREATE TABLE ledger_account (
    tenant        TEXT    NOT NULL,
    day_start     INTEGER NOT NULL,
    day_settled   INTEGER NOT NULL,
    day_overrun   INTEGER NOT NULL,
    month_start   INTEGER NOT NULL,
    month_settled INTEGER NOT NULL,
    month_overrun INTEGER NOT NULL,
    PRIMARY KEY (tenant)
) STRICT, WITHOUT ROWID;

CREATE TABLE ledger_hold (
    tenant     TEXT    NOT NULL,
    request    BLOB    NOT NULL,
    tokens     INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    day        INTEGER NOT NULL,
    month      INTEGER NOT NULL,
    PRIMARY KEY (tenant, request)
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency (
    tenant      TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    fingerprint BLOB    NOT NULL,
    holder      BLOB    NOT NULL,
    expires_at  INTEGER NOT NULL,
    answer      TEXT,
    PRIMARY KEY (tenant, key)
) STRICT;

CREATE INDEX idempotency_by_expiry ON idempotency (tenant, expires_at);

CREATE TABLE usage (
    tenant      TEXT    NOT NULL,
    request     BLOB    NOT NULL,
    trace       TEXT    NOT NULL,
    route       TEXT    NOT NULL,
    user        TEXT    NOT NULL,
    session     BLOB,
    model       TEXT    NOT NULL,
    provider    TEXT,
    at          INTEGER NOT NULL,
    latency     INTEGER NOT NULL, -- microseconds
    first_token INTEGER,          -- microseconds
    tokens_in   INTEGER NOT NULL,
    tokens_out  INTEGER NOT NULL,
    estimated   INTEGER NOT NULL,
    charged     INTEGER NOT NULL,
    overrun     INTEGER NOT NULL,
    ending      TEXT    NOT NULL,
    PRIMARY KEY (tenant, request)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_by_time ON usage (tenant, at);
