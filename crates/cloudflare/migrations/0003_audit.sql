-- The runs of tools. Parameters and results are not kept; of the parameters only a hash, in hexadecimal. Every key begins with the
-- tenant; times are milliseconds since the epoch, durations are microseconds; ids are UUIDs, hyphenated and in lower case.

CREATE TABLE audit (
    tenant     TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    request    TEXT    NOT NULL,
    trace      TEXT    NOT NULL,
    route      TEXT    NOT NULL,
    user       TEXT    NOT NULL,
    tool       TEXT    NOT NULL,
    params     TEXT    NOT NULL,
    outcome    TEXT    NOT NULL,
    duration   INTEGER NOT NULL,
    tokens     INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX audit_by_time ON audit (tenant, at DESC, id);
CREATE INDEX audit_by_tool ON audit (tenant, tool, at DESC, id);
CREATE INDEX audit_by_expiry ON audit (tenant, expires_at);
