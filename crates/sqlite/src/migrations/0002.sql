-- Records in the order of time, in one tree: new ones are added at its end. By request alone each would touch a page of its own.

ALTER TABLE usage RENAME TO usage_by_request;
DROP INDEX usage_by_time;

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
    -- When a request came does not change, so each still has one record.
    PRIMARY KEY (tenant, at, request)
) STRICT, WITHOUT ROWID;

INSERT INTO usage SELECT * FROM usage_by_request;
DROP TABLE usage_by_request;
