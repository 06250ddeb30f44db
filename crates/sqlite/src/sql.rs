//! Every statement that touches a tenant's data. The tenant is always the first parameter, and always part of the condition.

macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $sql:literal;)*) => {
        $($(#[$doc])* pub(crate) const $name: &str = $sql;)*

        #[cfg(test)]
        pub(crate) const ALL: &[(&str, &str)] = &[$((stringify!($name), $sql)),*];
    };
}

statements! {
    /// A session's row.
    SESSION_FIND = "
        SELECT user, created_at, updated_at, next_seq, message_count, token_count, oldest_at
        FROM session WHERE tenant = ?1 AND session = ?2";

    /// Writes a session's row, new or changed.
    SESSION_PUT = "
        INSERT INTO session
            (tenant, session, user, created_at, updated_at, next_seq, message_count, token_count, oldest_at)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
        ON CONFLICT (tenant, session) DO UPDATE SET
            user = excluded.user, created_at = excluded.created_at, updated_at = excluded.updated_at,
            next_seq = excluded.next_seq, message_count = excluded.message_count, token_count = excluded.token_count,
            oldest_at = excluded.oldest_at";

    /// Deletes a session's row; its messages have to go first.
    SESSION_DELETE = "DELETE FROM session WHERE tenant = ?1 AND session = ?2";

    /// The next sessions after one that may have something to remove: by age, or by number.
    SESSIONS_TO_SWEEP = "
        SELECT session FROM session
        WHERE tenant = ?1 AND session > ?2 AND (oldest_at < ?3 OR message_count > ?4)
        ORDER BY session LIMIT ?5";

    /// Adds a message.
    MESSAGE_ADD = "
        INSERT INTO message (tenant, session, seq, id, role, at, tokens, truncated, content)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

    /// The newest messages in a stretch of a session, the newest first.
    MESSAGES_NEWEST = "
        SELECT seq, id, role, at, tokens, truncated, content FROM message
        WHERE tenant = ?1 AND session = ?2 AND seq >= ?3 AND seq < ?4 AND at >= ?5
        ORDER BY seq DESC LIMIT ?6";

    /// Where the newest so many messages of a session begin, if there are that many.
    MESSAGES_FLOOR = "
        SELECT seq FROM message WHERE tenant = ?1 AND session = ?2 AND at >= ?3
        ORDER BY seq DESC LIMIT 1 OFFSET ?4";

    /// Whether a session has a message that is not older than a time.
    MESSAGES_EXIST = "SELECT EXISTS (SELECT 1 FROM message WHERE tenant = ?1 AND session = ?2 AND at >= ?3)";

    /// The time of a session's oldest message.
    MESSAGES_OLDEST_AT = "SELECT min(at) FROM message WHERE tenant = ?1 AND session = ?2";

    /// Deletes a session's messages from before a time.
    MESSAGES_DELETE_OLD = "
        DELETE FROM message WHERE tenant = ?1 AND session = ?2 AND at < ?3 RETURNING tokens";

    /// Deletes a session's first so many messages.
    MESSAGES_DELETE_FIRST = "
        DELETE FROM message WHERE tenant = ?1 AND session = ?2 AND seq IN
            (SELECT seq FROM message WHERE tenant = ?1 AND session = ?2 ORDER BY seq LIMIT ?3)
        RETURNING tokens";

    /// Deletes all messages of a session.
    MESSAGES_DELETE_ALL = "DELETE FROM message WHERE tenant = ?1 AND session = ?2";

    /// Lists a session, unless a newer state of it is listed.
    INDEX_PUT = "
        INSERT INTO session_index (tenant, session, user, created_at, updated_at, message_count, token_count)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
        ON CONFLICT (tenant, session) DO UPDATE SET
            user = excluded.user, created_at = excluded.created_at, updated_at = excluded.updated_at,
            message_count = excluded.message_count, token_count = excluded.token_count
        WHERE excluded.updated_at >= session_index.updated_at";

    /// Lists everybody's sessions that come after one, the latest changed first.
    INDEX_LIST = "
        SELECT session, user, created_at, updated_at, message_count, token_count FROM session_index
        WHERE tenant = ?1 AND updated_at >= ?2 AND updated_at <= ?3 AND (updated_at < ?3 OR session > ?4)
        ORDER BY updated_at DESC, session LIMIT ?5";

    /// Lists a user's sessions that come after one, the latest changed first.
    INDEX_LIST_OF_USER = "
        SELECT session, user, created_at, updated_at, message_count, token_count FROM session_index
        WHERE tenant = ?1 AND user = ?6 AND updated_at >= ?2 AND updated_at <= ?3 AND (updated_at < ?3 OR session > ?4)
        ORDER BY updated_at DESC, session LIMIT ?5";

    /// Lists a session no more.
    INDEX_DELETE = "DELETE FROM session_index WHERE tenant = ?1 AND session = ?2";

    /// Lists some sessions no more that have not changed since a time.
    INDEX_DELETE_OLD = "
        DELETE FROM session_index WHERE tenant = ?1 AND session IN
            (SELECT session FROM session_index WHERE tenant = ?1 AND updated_at < ?2 LIMIT ?3)";

    /// The books of a tenant.
    LEDGER_FIND = "
        SELECT day_start, day_settled, day_overrun, month_start, month_settled, month_overrun
        FROM ledger_account WHERE tenant = ?1";

    /// Writes the books of a tenant.
    LEDGER_PUT = "
        INSERT INTO ledger_account
            (tenant, day_start, day_settled, day_overrun, month_start, month_settled, month_overrun)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
        ON CONFLICT (tenant) DO UPDATE SET
            day_start = excluded.day_start, day_settled = excluded.day_settled, day_overrun = excluded.day_overrun,
            month_start = excluded.month_start, month_settled = excluded.month_settled,
            month_overrun = excluded.month_overrun";

    /// The holds of a tenant.
    HOLDS_OF = "SELECT request, tokens, expires_at, day, month FROM ledger_hold WHERE tenant = ?1";

    /// Keeps a hold.
    HOLD_ADD = "
        INSERT INTO ledger_hold (tenant, request, tokens, expires_at, day, month) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

    /// Forgets a hold.
    HOLD_DELETE = "DELETE FROM ledger_hold WHERE tenant = ?1 AND request = ?2";

    /// What is kept under an idempotency key.
    IDEMPOTENCY_FIND = "SELECT fingerprint, holder, answer, expires_at FROM idempotency WHERE tenant = ?1 AND key = ?2";

    /// Gives a key to a holder.
    IDEMPOTENCY_PUT = "
        INSERT INTO idempotency (tenant, key, fingerprint, holder, expires_at, answer) VALUES (?1, ?2, ?3, ?4, ?5, NULL)
        ON CONFLICT (tenant, key) DO UPDATE SET
            fingerprint = excluded.fingerprint, holder = excluded.holder, expires_at = excluded.expires_at, answer = NULL";

    /// Keeps an answer, if the holder still has the key.
    IDEMPOTENCY_FINISH = "
        UPDATE idempotency SET answer = ?4, expires_at = ?5
        WHERE tenant = ?1 AND key = ?2 AND holder = ?3 AND answer IS NULL";

    /// Frees a key, if the holder still has it and there is no answer.
    IDEMPOTENCY_ABANDON = "DELETE FROM idempotency WHERE tenant = ?1 AND key = ?2 AND holder = ?3 AND answer IS NULL";

    /// Deletes some entries that have expired, the oldest first.
    IDEMPOTENCY_DELETE_EXPIRED = "
        DELETE FROM idempotency WHERE tenant = ?1 AND key IN
            (SELECT key FROM idempotency WHERE tenant = ?1 AND expires_at <= ?2 ORDER BY expires_at LIMIT ?3)";

    /// Records a request, once.
    USAGE_ADD = "
        INSERT INTO usage
            (tenant, request, trace, route, user, session, model, provider, at, latency, first_token, tokens_in, tokens_out,
             estimated, charged, overrun, ending)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)
        ON CONFLICT (tenant, at, request) DO NOTHING";

    /// The records of a stretch of time, the oldest first.
    USAGE_BETWEEN = "
        SELECT request, trace, route, user, session, model, provider, at, latency, first_token, tokens_in, tokens_out,
            estimated, charged, overrun, ending
        FROM usage WHERE tenant = ?1 AND at >= ?2 AND at < ?3 ORDER BY at, request LIMIT ?4";

    /// Deletes some records from before a time.
    USAGE_DELETE_OLD = "
        DELETE FROM usage WHERE tenant = ?1 AND (at, request) IN
            (SELECT at, request FROM usage WHERE tenant = ?1 AND at < ?2 LIMIT ?3)";
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The statement as one line, and cut where an inner `SELECT` begins.
    fn parts(sql: &str) -> Vec<String> {
        let line = sql.split_whitespace().collect::<Vec<_>>().join(" ");
        line.split("(SELECT ").map(str::to_owned).collect()
    }

    #[test]
    fn every_statement_and_every_part_of_it_names_the_tenant() {
        for (name, sql) in ALL {
            for part in parts(sql) {
                let reads_a_table = part.contains("FROM ") || part.contains("UPDATE ") || part.contains("INSERT INTO");
                let conflicts_within = !part.contains("ON CONFLICT") || part.contains("ON CONFLICT (tenant");
                let adds = part.contains("(tenant, ") && part.contains("VALUES (?1, ") && conflicts_within;
                let of_one_tenant = part.contains("WHERE tenant = ?1") || adds;
                assert!(!reads_a_table || of_one_tenant, "{name}: {part}");
            }
            assert!(sql.contains("WHERE tenant = ?1") || sql.contains("VALUES (?1, "), "{name}");
        }
    }

    #[test]
    fn the_adapters_have_no_statements_of_their_own() {
        let sources = [
            ("session_store", include_str!("session_store.rs")),
            ("session_rows", include_str!("session_rows.rs")),
            ("session_index", include_str!("session_index.rs")),
            ("token_ledger", include_str!("token_ledger.rs")),
            ("ledgers", include_str!("ledgers.rs")),
            ("batch", include_str!("batch.rs")),
            ("request_books", include_str!("request_books.rs")),
            ("session_turns", include_str!("session_turns.rs")),
            ("idempotency_store", include_str!("idempotency_store.rs")),
            ("telemetry", include_str!("telemetry.rs")),
            ("maintenance", include_str!("maintenance.rs")),
        ];
        for (name, source) in sources {
            for keyword in ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "REPLACE "] {
                assert!(!source.contains(keyword), "{name} has a statement of its own: {keyword}");
            }
        }
    }
}
