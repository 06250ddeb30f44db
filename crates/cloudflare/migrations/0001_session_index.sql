-- The list of sessions: metadata, never what was said. Every key begins with the tenant; times are milliseconds since the epoch;
-- a session's id is its UUID, hyphenated and in lower case, as D1 gives bytes back as lists of numbers.

CREATE TABLE session_index (
    tenant        TEXT    NOT NULL,
    session       TEXT    NOT NULL,
    user          TEXT    NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    message_count INTEGER NOT NULL,
    token_count   INTEGER NOT NULL,
    PRIMARY KEY (tenant, session)
) STRICT, WITHOUT ROWID;

CREATE INDEX session_index_by_time ON session_index (tenant, updated_at DESC, session);
CREATE INDEX session_index_by_user ON session_index (tenant, user, updated_at DESC, session);
