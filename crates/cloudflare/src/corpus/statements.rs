//! What the corpus asks of D1. Every statement names the tenant, as its first parameter.
//!
//! Statements that change something come in batches, which are transactions. The first one of a batch decides, by the state that it
//! gives to versions, and the others go by that: where it changes nothing, they do not either.

use std::fmt::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use enigma_core::retrieval::{
    Bm25, CountedWords, Document, DocumentId, EmbeddedChunk, EmbeddingSpace, MetadataFilter, Occurrence, Staging,
};
use enigma_core::{PortError, TenantId, Timestamp, VersionId};
use serde_json::{Map, Value, json};

use super::{PORT, fields};
use crate::d1::{Param, Statement, exact, text, time};

/// The bits of a chunk's number that are its place in its version.
pub(super) const PLACE_BITS: u32 = 20;

/// The tenant's number.
const OWNER: &str = "(SELECT id FROM corpus_tenants WHERE tenant = ?1)";

/// Which chunks are those of the version `v`.
const OF_VERSION: &str = "c.id >= v.id << 20 AND c.id < (v.id + 1) << 20";

fn with_tenant(tenant: &TenantId) -> Vec<Param> {
    vec![text(tenant.as_str())]
}

/// Names the next parameter.
fn binder(params: &mut Vec<Param>) -> impl FnMut(Param) -> String {
    |param| {
        params.push(param);
        format!("?{}", params.len())
    }
}

fn number(value: u64) -> Result<Param, PortError> {
    crate::d1::number(PORT, value)
}

fn small(value: u32) -> Param {
    Param::Number(exact(value.into()))
}

fn optional(value: Option<&String>) -> Param {
    value.map_or(Param::Null, |value| Param::Text(value.clone()))
}

/// Base64 of the numbers, lowest byte first.
pub(super) fn encoded(vector: &[f32]) -> String {
    BASE64_STANDARD.encode(vector.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>())
}

/// The numbers again; `None` where they cannot be.
pub(super) fn decoded(text: &str) -> Option<Vec<f32>> {
    let bytes = BASE64_STANDARD.decode(text).ok()?;
    let (numbers, rest) = bytes.as_chunks();
    rest.is_empty().then(|| numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

/// The tenant's generation and space, and how many chunks were published in the last `late` seconds.
pub(super) fn state(tenant: &TenantId, late: u32) -> Statement {
    let sql = "SELECT t.generation, t.model, t.dimensions, (SELECT COALESCE(SUM(v.chunks), 0) FROM corpus_versions v
            WHERE v.owner = t.id AND v.state = 1 AND v.visible_at > unixepoch() - ?2) AS recent
        FROM corpus_tenants t WHERE t.tenant = ?1";
    Statement::new(sql, vec![text(tenant.as_str()), small(late)])
}

/// Adds chunks to a version, unless it is published; tells its state and the name of its vectors.
pub(super) fn stage(
    tenant: &TenantId,
    staging: Staging<'_>,
    chunks: &[EmbeddedChunk],
    now: Timestamp,
) -> Result<Vec<Statement>, PortError> {
    let Staging { document, version, space } = staging;
    let mut batch = vec![
        Statement::new("INSERT INTO corpus_tenants (tenant) VALUES (?1) ON CONFLICT DO NOTHING", with_tenant(tenant)),
        Statement::new(
            "INSERT INTO corpus_versions (owner, version, vector_key, document, model, dimensions, staged_at)
             SELECT id, ?2, lower(hex(randomblob(16))), ?3, ?4, ?5, ?6 FROM corpus_tenants WHERE tenant = ?1
             ON CONFLICT (owner, version) DO UPDATE SET staged_at = excluded.staged_at WHERE state = 0",
            vec![
                text(tenant.as_str()),
                text(&version),
                text(document),
                text(&space.model),
                small(space.dimensions),
                time(now),
            ],
        ),
    ];
    for EmbeddedChunk { chunk, vector } in chunks {
        if chunk.ordinal >> PLACE_BITS != 0 {
            return Err(PortError::unavailable(PORT, "a document has more chunks than can be kept"));
        }
        let counted = CountedWords::of(&chunk.text);
        let kinds: Map<_, _> = counted.words.iter().map(|(word, it)| (word.clone(), json!(it.kind()))).collect();
        batch.push(Statement::new(
            format!(
                "INSERT OR REPLACE INTO corpus_chunks (id, start, length, words, text, vector)
                 SELECT id << 20 | ?3, ?4, ?5, ?6, ?7, ?8 FROM corpus_versions
                 WHERE owner = {OWNER} AND version = ?2 AND state = 0"
            ),
            vec![
                text(tenant.as_str()),
                text(&version),
                small(chunk.ordinal),
                number(chunk.start)?,
                small(counted.length),
                Param::Text(Value::Object(kinds).to_string()),
                Param::Text(chunk.text.clone()),
                Param::Text(encoded(vector)),
            ],
        ));
    }
    batch.push(Statement::new(
        format!("SELECT state, vector_key FROM corpus_versions WHERE owner = {OWNER} AND version = ?2"),
        vec![text(tenant.as_str()), text(&version)],
    ));
    Ok(batch)
}

/// What the tenant's corpus and a version are.
pub(super) fn look(tenant: &TenantId, version: VersionId) -> Statement {
    let sql = format!(
        "SELECT t.generation, t.model, t.dimensions, v.state, v.document, v.vector_key, v.model AS version_model,
            v.dimensions AS version_dimensions,
            (SELECT COUNT(*) FROM corpus_chunks c WHERE {OF_VERSION}) AS staged
         FROM corpus_tenants t LEFT JOIN corpus_versions v ON v.owner = t.id AND v.version = ?2 WHERE t.tenant = ?1"
    );
    Statement::new(sql, vec![text(tenant.as_str()), text(&version)])
}

/// Some of a staged version's vectors: those at the places from `from` on, before `to`.
pub(super) fn staged_vectors(tenant: &TenantId, version: VersionId, from: u32, to: u32) -> Statement {
    let sql = format!(
        "SELECT c.id - (v.id << 20) AS ordinal, c.vector FROM corpus_versions v
         JOIN corpus_chunks c ON c.id >= v.id << 20 | ?3 AND c.id < (v.id << 20) + ?4
         WHERE v.owner = {OWNER} AND v.version = ?2 AND v.state = 0"
    );
    Statement::new(sql, vec![text(tenant.as_str()), text(&version), small(from), small(to)])
}

/// Publishes a version in place of the document's older one, if it is as it has to be. Tells at its end what [`look`] does, and
/// then the vectors that have to go.
pub(super) fn publish(
    tenant: &TenantId,
    version: VersionId,
    document: &Document,
    space: &EmbeddingSpace,
    chunks: u32,
    now: Timestamp,
) -> Vec<Statement> {
    let id = || text(tenant.as_str());
    let arriving = format!("EXISTS (SELECT 1 FROM corpus_versions n WHERE n.owner = {OWNER} AND n.state = 2)");
    let count = |what: &str, state: u8| {
        format!("(SELECT COALESCE(SUM({what}), 0) FROM corpus_versions WHERE owner = {OWNER} AND state = {state})")
    };
    let change = |what: &str| format!("{what} = {what} + {} - {}", count(what, 2), count(what, 3));
    let mut batch = vec![
        Statement::new(
            format!(
                "UPDATE corpus_versions AS v SET state = 2, published_at = ?7, visible_at = unixepoch(), chunks = ?6,
                    words = (SELECT SUM(c.length) FROM corpus_chunks c WHERE {OF_VERSION}),
                    source = ?8, title = ?9, url = ?10, metadata = ?11
                 WHERE owner = {OWNER} AND version = ?2 AND state = 0 AND document = ?3 AND model = ?4 AND dimensions = ?5
                    AND ?6 > 0 AND ?6 = (SELECT COUNT(*) FROM corpus_chunks c WHERE {OF_VERSION})
                    AND EXISTS (SELECT 1 FROM corpus_tenants t WHERE t.id = v.owner
                        AND (t.model IS NULL OR t.model = ?4 AND t.dimensions = ?5))"
            ),
            vec![
                id(),
                text(&version),
                text(&document.id),
                text(&space.model),
                small(space.dimensions),
                small(chunks),
                time(now),
                optional(document.source.as_ref()),
                optional(document.title.as_ref()),
                optional(document.url.as_ref()),
                Param::Text(document.metadata.to_json()),
            ],
        ),
        Statement::new(
            format!(
                "UPDATE corpus_versions SET state = 3
                 WHERE owner = {OWNER} AND document = ?2 AND state = 1 AND {arriving}"
            ),
            vec![id(), text(&document.id)],
        ),
        Statement::new(
            format!(
                "UPDATE corpus_tenants SET generation = generation + 1, model = ?2, dimensions = ?3,
                    documents = documents + 1
                        - (SELECT COUNT(*) FROM corpus_versions WHERE owner = {OWNER} AND state = 3),
                    {}, {}
                 WHERE tenant = ?1 AND {arriving}",
                change("chunks"),
                change("words")
            ),
            vec![id(), text(&space.model), small(space.dimensions)],
        ),
        Statement::new(
            format!(
                "INSERT INTO corpus_words (owner, word, chunk, kind)
                 SELECT v.owner, j.key, c.id, j.value FROM corpus_versions v
                 JOIN corpus_chunks c ON {OF_VERSION} JOIN json_each(c.words) j WHERE v.owner = {OWNER} AND v.state = 2"
            ),
            vec![id()],
        ),
        Statement::new(
            format!(
                "INSERT INTO corpus_fields (version, name, value)
                 SELECT v.id, json_extract(j.value, '$[0]'), json_extract(j.value, '$[1]')
                 FROM corpus_versions v JOIN json_each(?2) j WHERE v.owner = {OWNER} AND v.state = 2"
            ),
            vec![id(), Param::Text(fields::rows(&document.metadata))],
        ),
    ];
    batch.extend(bury(tenant));
    batch.push(Statement::new(
        format!("UPDATE corpus_versions SET state = 1 WHERE owner = {OWNER} AND state = 2"),
        vec![id()],
    ));
    batch.extend([look(tenant, version), outbox(tenant)]);
    batch
}

/// Deletes a document. Tells first the versions that went, and at its end the vectors that have to go.
pub(super) fn delete(tenant: &TenantId, document: &DocumentId) -> Vec<Statement> {
    let going = format!("FROM corpus_versions WHERE owner = {OWNER} AND state = 3");
    let mut batch = vec![
        Statement::new(
            format!(
                "UPDATE corpus_versions SET state = 3 WHERE owner = {OWNER} AND document = ?2 AND state = 1 RETURNING id"
            ),
            vec![text(tenant.as_str()), text(document)],
        ),
        Statement::new(
            format!(
                "UPDATE corpus_tenants SET generation = generation + 1, documents = documents - 1,
                    chunks = chunks - (SELECT SUM(chunks) {going}), words = words - (SELECT SUM(words) {going}),
                    model = CASE documents WHEN 1 THEN NULL ELSE model END,
                    dimensions = CASE documents WHEN 1 THEN NULL ELSE dimensions END
                 WHERE tenant = ?1 AND EXISTS (SELECT 1 {going})"
            ),
            with_tenant(tenant),
        ),
    ];
    batch.extend(bury(tenant));
    batch.push(outbox(tenant));
    batch
}

/// Forgets a staged version. Tells at its end the vectors that have to go.
pub(super) fn discard(tenant: &TenantId, version: VersionId) -> Vec<Statement> {
    let mut batch = vec![Statement::new(
        format!("UPDATE corpus_versions SET state = 3 WHERE owner = {OWNER} AND version = ?2 AND state = 0"),
        vec![text(tenant.as_str()), text(&version)],
    )];
    batch.extend(bury(tenant));
    batch.push(outbox(tenant));
    batch
}

/// Forgets the versions that were staged before a time. Tells second how many chunks those were, and at its end the vectors that
/// have to go.
pub(super) fn sweep(tenant: &TenantId, before: Timestamp) -> Vec<Statement> {
    let mut batch = vec![
        Statement::new(
            format!("UPDATE corpus_versions SET state = 3 WHERE owner = {OWNER} AND state = 0 AND staged_at < ?2"),
            vec![text(tenant.as_str()), time(before)],
        ),
        Statement::new(
            format!(
                "SELECT COUNT(*) AS chunks FROM corpus_versions v JOIN corpus_chunks c ON {OF_VERSION}
                 WHERE v.owner = {OWNER} AND v.state = 3"
            ),
            with_tenant(tenant),
        ),
    ];
    batch.extend(bury(tenant));
    batch.push(outbox(tenant));
    batch
}

/// Removes the versions that are to go, and notes their vectors.
fn bury(tenant: &TenantId) -> Vec<Statement> {
    let going = format!("v.owner = {OWNER} AND v.state = 3");
    let all = [
        format!(
            "INSERT INTO corpus_outbox (vector_key, owner, chunks)
             SELECT v.vector_key, v.owner, MAX(c.id) - (v.id << 20) + 1 FROM corpus_versions v
             JOIN corpus_chunks c ON {OF_VERSION} WHERE {going} GROUP BY v.id"
        ),
        format!(
            "DELETE FROM corpus_words WHERE (owner, word, chunk) IN (
                SELECT v.owner, j.key, c.id FROM corpus_versions v
                JOIN corpus_chunks c ON {OF_VERSION} JOIN json_each(c.words) j
                WHERE {going} AND v.published_at IS NOT NULL)"
        ),
        format!("DELETE FROM corpus_fields WHERE version IN (SELECT v.id FROM corpus_versions v WHERE {going})"),
        format!(
            "DELETE FROM corpus_chunks WHERE id IN (
                SELECT c.id FROM corpus_versions v JOIN corpus_chunks c ON {OF_VERSION} WHERE {going})"
        ),
        format!("DELETE FROM corpus_versions WHERE owner = {OWNER} AND state = 3"),
    ];
    all.map(|sql| Statement::new(sql, with_tenant(tenant))).into()
}

/// Vectors that still have to go.
pub(super) fn outbox(tenant: &TenantId) -> Statement {
    let sql = format!("SELECT vector_key, chunks, done FROM corpus_outbox WHERE owner = {OWNER} LIMIT 16");
    Statement::new(sql, with_tenant(tenant))
}

/// The vectors of these names have gone, up to these places.
pub(super) fn gone(tenant: &TenantId, gone: &[(String, u32)]) -> Vec<Statement> {
    let list = || Param::Text(json!(gone).to_string());
    vec![
        Statement::new(
            format!(
                "UPDATE corpus_outbox SET done = MAX(done, json_extract(j.value, '$[1]')) FROM json_each(?2) j
                 WHERE owner = {OWNER} AND vector_key = json_extract(j.value, '$[0]')"
            ),
            vec![text(tenant.as_str()), list()],
        ),
        Statement::new(
            format!("DELETE FROM corpus_outbox WHERE owner = {OWNER} AND done >= chunks"),
            with_tenant(tenant),
        ),
    ]
}

/// The documents after one, one more than are wanted.
pub(super) fn documents(tenant: &TenantId, after: Option<&DocumentId>, limit: u32) -> Result<Statement, PortError> {
    let sql = format!(
        "SELECT document, source, title, url, metadata, chunks, published_at FROM corpus_versions
         WHERE owner = {OWNER} AND state = 1 AND document > ?2 ORDER BY document LIMIT ?3"
    );
    // Nothing is called so.
    let after = after.map_or("", DocumentId::as_str);
    Ok(Statement::new(sql, vec![text(tenant.as_str()), text(after), number(u64::from(limit) + 1)?]))
}

/// A document and its version; and its chunks, whole, from one on. As one batch both are of one moment.
pub(super) fn part(tenant: &TenantId, document: &DocumentId, from: u32, limit: u32) -> Vec<Statement> {
    let found = format!("v.owner = {OWNER} AND v.document = ?2 AND v.state = 1");
    let key = || vec![text(tenant.as_str()), text(document)];
    let chunks = format!(
        "SELECT c.id & 1048575 AS ordinal, c.start, c.text FROM corpus_versions v
         JOIN corpus_chunks c ON c.id >= v.id << 20 | ?3 AND c.id < (v.id + 1) << 20
         WHERE {found} ORDER BY c.id LIMIT ?4"
    );
    vec![
        Statement::new(
            format!(
                "SELECT v.document, v.source, v.title, v.url, v.metadata, v.chunks, v.published_at, v.version
                 FROM corpus_versions v WHERE {found}"
            ),
            key(),
        ),
        Statement::new(chunks, [key(), vec![small(from.min((1 << PLACE_BITS) - 1)), small(limit)]].concat()),
    ]
}

/// Which chunks are compared with a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Among {
    /// All of them.
    All,
    /// Those that were published no longer than so many seconds ago.
    Recent(u32),
}

impl Among {
    fn condition(self, bind: &mut impl FnMut(Param) -> String) -> String {
        match self {
            Self::All => String::new(),
            Self::Recent(seconds) => format!(" AND v.visible_at > unixepoch() - {}", bind(small(seconds))),
        }
    }
}

/// How many chunks a filter lets pass, how many of them are recent, and the dimensions of the tenant's space.
pub(super) fn extent(tenant: &TenantId, filter: &MetadataFilter, recent: u32) -> Statement {
    let mut params = with_tenant(tenant);
    let mut bind = binder(&mut params);
    let recent = Among::Recent(recent).condition(&mut bind);
    let filtered = fields::conditions(filter, &mut bind);
    let sum = |which: &str| {
        format!(
            "(SELECT COALESCE(SUM(v.chunks), 0) FROM corpus_versions v WHERE v.owner = t.id AND v.state = 1{which})"
        )
    };
    let all = if filter.is_empty() { "t.chunks".to_owned() } else { sum(&filtered) };
    let recent = sum(&format!("{recent}{filtered}"));
    let sql =
        format!("SELECT t.dimensions, {all} AS chunks, {recent} AS recent FROM corpus_tenants t WHERE t.tenant = ?1");
    drop(bind);
    Statement::new(sql, params)
}

/// The vectors of chunks that a filter lets pass.
pub(super) fn vectors(tenant: &TenantId, filter: &MetadataFilter, among: Among) -> Statement {
    let mut params = with_tenant(tenant);
    let mut bind = binder(&mut params);
    let (recent, filtered) = (among.condition(&mut bind), fields::conditions(filter, &mut bind));
    let sql = format!(
        "SELECT c.id, c.vector, v.document FROM corpus_versions v JOIN corpus_chunks c ON {OF_VERSION}
         WHERE v.owner = {OWNER} AND v.state = 1{recent}{filtered}"
    );
    drop(bind);
    Statement::new(sql, params)
}

/// The vectors of the chunks that Vectorize has named, as far as they are the tenant's, published, and pass the filter.
pub(super) fn named_vectors(tenant: &TenantId, filter: &MetadataFilter, named: &[(&str, u32)]) -> Statement {
    let mut params = vec![text(tenant.as_str()), Param::Text(json!(named).to_string())];
    let mut bind = binder(&mut params);
    let filtered = fields::conditions(filter, &mut bind);
    let sql = format!(
        "SELECT c.id, c.vector, v.document FROM json_each(?2) j
         JOIN corpus_versions v ON v.vector_key = json_extract(j.value, '$[0]')
         JOIN corpus_chunks c ON c.id = v.id << 20 | json_extract(j.value, '$[1]')
         WHERE v.owner = {OWNER} AND v.state = 1{filtered}"
    );
    drop(bind);
    Statement::new(sql, params)
}

const PASSAGE: &str =
    "v.document, v.source, v.title, v.url, v.metadata, c.id, c.id & 1048575 AS ordinal, c.start, c.text";

/// Chunks, whole, as far as they are still published.
pub(super) fn passages(tenant: &TenantId, ids: &[u64]) -> Statement {
    let sql = format!(
        "SELECT {PASSAGE} FROM json_each(?2) j JOIN corpus_chunks c ON c.id = j.value
         JOIN corpus_versions v ON v.id = c.id >> 20 WHERE v.owner = {OWNER} AND v.state = 1"
    );
    Statement::new(sql, vec![text(tenant.as_str()), Param::Text(json!(ids).to_string())])
}

/// How many chunks and words the tenant has, and how many chunks have each of these words.
pub(super) fn occurrences(tenant: &TenantId, words: &[String]) -> Statement {
    let sql = "SELECT t.chunks, t.words, j.value AS word,
            (SELECT COUNT(*) FROM corpus_words w WHERE w.owner = t.id AND w.word = j.value) AS containing
         FROM corpus_tenants t JOIN json_each(?2) j WHERE t.tenant = ?1";
    Statement::new(sql, vec![text(tenant.as_str()), Param::Text(json!(words).to_string())])
}

/// The chunks that words of these weights fit best, whole. Their order is that of scores which are rounded: sums of the same
/// numbers differ in their last digits.
pub(super) fn matching(
    tenant: &TenantId,
    filter: &MetadataFilter,
    statistics: &Bm25,
    weights: &[(&String, f64)],
    limit: u32,
) -> Statement {
    let list: Value = weights.iter().map(|(word, weight)| json!([word, weight])).collect();
    // What a word of weight 1 adds, for each way in which one can occur: in one text, of which D1 takes the piece that it needs.
    let mut factors = String::new();
    for kind in (0..Occurrence::KINDS).filter_map(Occurrence::of_kind) {
        write!(factors, "{:.12}", statistics.score(1.0, kind)).expect("a text takes what is written to it");
    }
    let mut params = vec![text(tenant.as_str()), Param::Text(list.to_string()), Param::Text(factors), small(limit)];
    let filtered = fields::conditions(filter, binder(&mut params));
    let sql = format!(
        "WITH asked AS (
            SELECT json_extract(value, '$[0]') AS word, json_extract(value, '$[1]') AS weight FROM json_each(?2)
         ), best AS (
            SELECT w.chunk AS id,
                ROUND(SUM(a.weight * CAST(substr(CAST(?3 AS BLOB), 1 + 14 * w.kind, 14) AS REAL)), 9) AS score
            FROM asked a CROSS JOIN corpus_words w ON w.owner = {OWNER} AND w.word = a.word
            CROSS JOIN corpus_versions v ON v.id = w.chunk >> 20
            WHERE 1{filtered}
            GROUP BY w.chunk ORDER BY score DESC, v.document, w.chunk LIMIT ?4
         )
         SELECT {PASSAGE} FROM best CROSS JOIN corpus_chunks c ON c.id = best.id
         CROSS JOIN corpus_versions v ON v.id = c.id >> 20 WHERE v.owner = {OWNER} AND v.state = 1"
    );
    Statement::new(sql, params)
}

/// How well a chunk fits, exactly: `None` where it has none of the words.
pub(super) fn score(statistics: &Bm25, weights: &[(&String, f64)], chunk: &str) -> Option<f64> {
    let counted = CountedWords::of(chunk);
    let parts =
        weights.iter().filter_map(|(word, weight)| counted.words.get(*word).map(|it| statistics.score(*weight, *it)));
    parts.reduce(|sum, part| sum + part)
}
