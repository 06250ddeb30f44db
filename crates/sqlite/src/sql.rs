//! Every statement that touches a tenant's data. The tenant is always the first parameter, and always part of the condition; of
//! a word it is the first part.

use std::ops::RangeInclusive;
use std::sync::LazyLock;

use enigma_core::retrieval::Occurrence;

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
             estimated, charged, overrun, ending, characters)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)
        ON CONFLICT (tenant, at, request) DO NOTHING";

    /// The records of a stretch of time, the oldest first.
    USAGE_BETWEEN = "
        SELECT request, trace, route, user, session, model, provider, at, latency, first_token, tokens_in, tokens_out,
            estimated, charged, overrun, ending, characters
        FROM usage WHERE tenant = ?1 AND at >= ?2 AND at < ?3 ORDER BY at, request LIMIT ?4";

    /// Deletes some records from before a time.
    USAGE_DELETE_OLD = "
        DELETE FROM usage WHERE tenant = ?1 AND (at, request) IN
            (SELECT at, request FROM usage WHERE tenant = ?1 AND at < ?2 LIMIT ?3)";

    /// Adds an audit record, unless it is there.
    AUDIT_ADD = "
        INSERT INTO audit
            (tenant, id, at, request, trace, route, user, tool, params, outcome, duration, tokens, expires_at)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
        ON CONFLICT (tenant, id) DO NOTHING";

    /// Lists the audit records of a stretch of time that come after one, the newest first.
    AUDIT_LIST = "
        SELECT id, at, request, trace, route, user, tool, params, outcome, duration, tokens, expires_at
        FROM audit INDEXED BY audit_by_time
        WHERE tenant = ?1 AND at >= ?2 AND at < ?3 AND at <= ?4 AND (at < ?4 OR id > ?5) AND expires_at > ?6
        ORDER BY at DESC, id LIMIT ?7";

    /// Lists those of one tool.
    AUDIT_LIST_OF_TOOL = "
        SELECT id, at, request, trace, route, user, tool, params, outcome, duration, tokens, expires_at
        FROM audit INDEXED BY audit_by_tool
        WHERE tenant = ?1 AND tool = ?8 AND at >= ?2 AND at < ?3 AND at <= ?4 AND (at < ?4 OR id > ?5) AND expires_at > ?6
        ORDER BY at DESC, id LIMIT ?7";

    /// Deletes some audit records that have expired.
    AUDIT_DELETE_EXPIRED = "
        DELETE FROM audit WHERE tenant = ?1 AND id IN
            (SELECT id FROM audit WHERE tenant = ?1 AND expires_at <= ?2 LIMIT ?3)";

    /// A tenant's corpus.
    CORPUS_FIND = "SELECT generation, documents, chunks, words, model, dimensions FROM corpus WHERE tenant = ?1";

    /// Writes a tenant's corpus, new or changed.
    CORPUS_PUT = "
        INSERT INTO corpus (tenant, generation, documents, chunks, words, model, dimensions)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
        ON CONFLICT (tenant) DO UPDATE SET
            generation = excluded.generation, documents = excluded.documents, chunks = excluded.chunks,
            words = excluded.words, model = excluded.model, dimensions = excluded.dimensions";

    /// The version of a document that is found.
    DOCUMENT_FIND = "SELECT number FROM corpus_document WHERE tenant = ?1 AND document = ?2";

    /// Has another version of a document found.
    DOCUMENT_PUT = "
        INSERT INTO corpus_document (tenant, document, number) VALUES (?1, ?2, ?3)
        ON CONFLICT (tenant, document) DO UPDATE SET number = excluded.number";

    /// Has no version of a document found any more.
    DOCUMENT_DELETE = "DELETE FROM corpus_document WHERE tenant = ?1 AND document = ?2";

    /// Has no document found any more.
    DOCUMENTS_DELETE_ALL = "DELETE FROM corpus_document WHERE tenant = ?1";

    /// The documents after one, with what is known of them.
    DOCUMENTS_AFTER = "
        SELECT document, source, title, url, metadata, chunks, at
        FROM corpus_document CROSS JOIN corpus_version USING (tenant, document, number)
        WHERE tenant = ?1 AND document > ?2 ORDER BY document LIMIT ?3";

    /// A document, and the version of it that is found.
    DOCUMENT_VERSION = "
        SELECT document, source, title, url, metadata, chunks, at, number, version
        FROM corpus_document CROSS JOIN corpus_version USING (tenant, document, number)
        WHERE tenant = ?1 AND document = ?2";

    /// The versions that are found.
    DOCUMENTS_NUMBERS = "SELECT number FROM corpus_document WHERE tenant = ?1";

    /// What filters look at.
    DOCUMENTS_METADATA = "
        SELECT number, metadata FROM corpus_document CROSS JOIN corpus_version USING (tenant, document, number)
        WHERE tenant = ?1";

    /// All documents by name.
    DOCUMENTS_NAMES = "SELECT number, document FROM corpus_document WHERE tenant = ?1 ORDER BY document";

    /// A version by its name.
    VERSION_FIND = "
        SELECT number, state, document, model, dimensions, chunks, words
        FROM corpus_version WHERE tenant = ?1 AND version = ?2";

    /// What is known of the document of a version.
    VERSION_DOCUMENT = "
        SELECT document, source, title, url, metadata FROM corpus_version WHERE tenant = ?1 AND number = ?2";

    /// How large a version is.
    VERSION_SIZE = "SELECT chunks, words FROM corpus_version WHERE tenant = ?1 AND number = ?2";

    /// Begins a version.
    VERSION_ADD = "
        INSERT INTO corpus_version (tenant, version, state, at, document, model, dimensions, chunks, words)
        VALUES (?1, ?2, 0, ?3, ?4, ?5, ?6, 0, 0)";

    /// Says how much was staged for a version.
    VERSION_STAGE = "
        UPDATE corpus_version SET at = max(at, ?3), chunks = ?4, words = ?5 WHERE tenant = ?1 AND number = ?2";

    /// Has a version found.
    VERSION_PUBLISH = "
        UPDATE corpus_version SET state = 1, at = ?3, source = ?4, title = ?5, url = ?6, metadata = ?7
        WHERE tenant = ?1 AND number = ?2";

    /// Has a version removed.
    VERSION_END = "UPDATE corpus_version SET state = 2 WHERE tenant = ?1 AND number = ?2";

    /// Has a version removed that nobody has published.
    VERSION_DISCARD = "UPDATE corpus_version SET state = 2 WHERE tenant = ?1 AND version = ?2 AND state = 0";

    /// Has the versions removed for which nothing was staged since a time.
    VERSIONS_END_OLD = "
        UPDATE corpus_version INDEXED BY corpus_version_unseen SET state = 2
        WHERE tenant = ?1 AND state = 0 AND state <> 1 AND at < ?2";

    /// Has all versions removed.
    VERSIONS_END_ALL = "UPDATE corpus_version SET state = 2 WHERE tenant = ?1";

    /// A version that is to be removed.
    VERSION_ENDED = "
        SELECT number FROM corpus_version INDEXED BY corpus_version_unseen
        WHERE tenant = ?1 AND state = 2 AND state <> 1 LIMIT 1";

    /// The versions that are not found.
    VERSIONS_UNSEEN = "
        SELECT number FROM corpus_version INDEXED BY corpus_version_unseen WHERE tenant = ?1 AND state <> 1";

    /// Removes a version; what belongs to it has to go first.
    VERSION_DELETE = "DELETE FROM corpus_version WHERE tenant = ?1 AND number = ?2";

    /// Adds a chunk that is not there.
    CHUNK_ADD = "
        INSERT INTO corpus_chunk (tenant, number, ordinal, start, words, text) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
        ON CONFLICT (tenant, number, ordinal) DO NOTHING";

    /// Replaces a chunk that is there.
    CHUNK_CHANGE = "
        UPDATE corpus_chunk SET start = ?4, words = ?5, text = ?6 WHERE tenant = ?1 AND number = ?2 AND ordinal = ?3";

    /// A chunk.
    CHUNK_FIND = "
        SELECT start, words, text FROM corpus_chunk WHERE tenant = ?1 AND number = ?2 AND ordinal = ?3";

    /// Some chunks of a version, one after the other.
    CHUNKS_BETWEEN = "
        SELECT ordinal, text FROM corpus_chunk
        WHERE tenant = ?1 AND number = ?2 AND ordinal >= ?3 AND ordinal < ?4 ORDER BY ordinal";

    /// Chunks of a version, whole, from one on.
    CHUNKS_FROM = "
        SELECT ordinal, start, text FROM corpus_chunk
        WHERE tenant = ?1 AND number = ?2 AND ordinal >= ?3 ORDER BY ordinal LIMIT ?4";

    /// Deletes some chunks of a version.
    CHUNKS_DELETE = "
        DELETE FROM corpus_chunk WHERE tenant = ?1 AND number = ?2 AND ordinal >= ?3 AND ordinal < ?4";

    /// The vectors of a part of a version.
    VECTORS_FIND = "SELECT vectors FROM corpus_vectors WHERE tenant = ?1 AND number = ?2 AND part = ?3";

    /// Writes the vectors of a part of a version.
    VECTORS_PUT = "
        INSERT INTO corpus_vectors (tenant, number, part, vectors) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT (tenant, number, part) DO UPDATE SET vectors = excluded.vectors";

    /// Deletes some vectors of a version.
    VECTORS_DELETE = "
        DELETE FROM corpus_vectors WHERE tenant = ?1 AND number = ?2 AND part >= ?3 AND part < ?4";

    /// The first part of a version.
    PART_FIRST = "SELECT part FROM corpus_codes WHERE tenant = ?1 AND number = ?2 ORDER BY part LIMIT 1";

    /// A part of a version, in short.
    CODES_FIND = "SELECT codes FROM corpus_codes WHERE tenant = ?1 AND number = ?2 AND part = ?3";

    /// Writes a part of a version, in short.
    CODES_PUT = "
        INSERT INTO corpus_codes (tenant, number, part, codes) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT (tenant, number, part) DO UPDATE SET codes = excluded.codes";

    /// Deletes a part of a version, in short.
    CODES_DELETE = "DELETE FROM corpus_codes WHERE tenant = ?1 AND number = ?2 AND part = ?3";

    /// All vectors of a tenant, in short, those of versions that are not found included.
    CODES_ALL = "SELECT number, codes FROM corpus_codes WHERE tenant = ?1 ORDER BY number, part";

    /// All vectors of a version, in short.
    CODES_OF = "SELECT codes FROM corpus_codes WHERE tenant = ?1 AND number = ?2 ORDER BY part";

    /// In how many chunks of a tenant a word is, those of versions that are not found included.
    WORD_COUNT = "SELECT doc FROM corpus_counts WHERE term = ?1 || ':' || ?2";

    /// The chunks of a tenant that a word is in, and how it occurs in them.
    WORD_PLACES = "SELECT doc, col FROM corpus_places WHERE term = ?1 || ':' || ?2";

    /// What is kept under a key and has not expired.
    CACHE_FIND = "SELECT value FROM cache WHERE tenant = ?1 AND key = ?2 AND expires_at > ?3";

    /// Keeps a value.
    CACHE_ADD = "INSERT INTO cache (tenant, key, expires_at, value) VALUES (?1, ?2, ?3, ?4)";

    /// Forgets a value; tells how long it and its key are.
    CACHE_DELETE = "
        DELETE FROM cache WHERE tenant = ?1 AND key = ?2 RETURNING octet_length(key) + octet_length(value)";

    /// Forgets some values that have expired, the oldest first; tells how long each is with its key.
    CACHE_DELETE_EXPIRED = "
        DELETE FROM cache WHERE tenant = ?1 AND key IN
            (SELECT key FROM cache WHERE tenant = ?1 AND expires_at <= ?2 ORDER BY expires_at LIMIT ?3)
        RETURNING octet_length(key) + octet_length(value)";

    /// How much is kept of a tenant.
    CACHE_ROOM = "SELECT bytes FROM cache_room WHERE tenant = ?1";

    /// Says how much is kept of a tenant.
    CACHE_ROOM_PUT = "
        INSERT INTO cache_room (tenant, bytes) VALUES (?1, ?2)
        ON CONFLICT (tenant) DO UPDATE SET bytes = excluded.bytes";
}

/// Adds a chunk to the index of words: its place, and for each kind of occurrence the words that occur so, each as tenant:word.
pub(crate) static WORDS_ADD: LazyLock<String> = LazyLock::new(|| words_statement("rowid", ""));

/// Takes a chunk out of the index of words; it has to be told what it was given.
pub(crate) static WORDS_DELETE: LazyLock<String> =
    LazyLock::new(|| words_statement("corpus_words, rowid", "'delete', "));

fn words_statement(first: &str, value: &str) -> String {
    let list = |name: &str, numbers: RangeInclusive<u16>| -> String {
        numbers.map(|number| format!(", {name}{number}")).collect::<Vec<_>>().concat()
    };
    let (columns, values) = (list("w", 0..=Occurrence::KINDS - 1), list("?", 2..=Occurrence::KINDS + 1));
    format!("INSERT INTO corpus_words ({first}{columns}) VALUES ({value}?1{values})")
}

/// Goes on to put the index of words together, so that of words that were taken out nothing is left: in steps of so many pages. The
/// first one has to be negative.
pub(crate) const WORDS_MERGE: &str = "INSERT INTO corpus_words (corpus_words, rank) VALUES ('merge', ?1)";

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
                let of_words = part.contains("WHERE term = ?1 || ':' || ?2");
                let of_one_tenant = part.contains("WHERE tenant = ?1") || adds || of_words;
                assert!(!reads_a_table || of_one_tenant, "{name}: {part}");
            }
            let has_tenant =
                ["WHERE tenant = ?1", "VALUES (?1, ", "WHERE term = ?1 || "].iter().any(|it| sql.contains(it));
            assert!(has_tenant, "{name}");
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
            ("corpus", include_str!("corpus.rs")),
            ("documents", include_str!("corpus/documents.rs")),
            ("near", include_str!("corpus/near.rs")),
            ("passages", include_str!("corpus/passages.rs")),
            ("places", include_str!("corpus/places.rs")),
            ("removal", include_str!("corpus/removal.rs")),
            ("versions", include_str!("corpus/versions.rs")),
            ("cache", include_str!("cache.rs")),
        ];
        for (name, source) in sources {
            for keyword in ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "REPLACE "] {
                assert!(!source.contains(keyword), "{name} has a statement of its own: {keyword}");
            }
        }
    }
}
