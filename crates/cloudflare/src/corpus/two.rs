//! A corpus over a database that has everything and an index that follows it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use enigma_core::ports::{Corpus, KeywordQuery, TenantDirectory, VectorQuery};
use enigma_core::retrieval::{
    Bm25, Chunk, CorpusGeneration, CorpusState, Document, DocumentId, DocumentPage, DocumentPart, DocumentSummary,
    EmbeddedChunk, EmbeddingSpace, Metadata, Passage, PublishError, Staging, cosine,
};
use enigma_core::tenant::TenantClaim;
use enigma_core::{ModelId, PortError, TenantId, Timestamp, VersionId};
use serde_json::Value;

use super::cells::{Cells, Row, corrupt};
use super::index::{MOST_DELETED, MOST_NAMED, batch_size, parsed_id, vector_id, widened};
use super::statements::{self, Among};
use super::tables::{CHANGE, QUESTION};
use super::{Exactness, MetadataIndexes, PORT, Tables, Vector, VectorIndex};
use crate::d1::Statement;
use crate::names::vector_namespace;

/// How many chunks, and how many bytes of their texts, one change adds, about.
const STAGED_AT_ONCE: usize = 100;
const STAGED_BYTES: usize = 4 << 20;
/// How many deletions follow one change. What is left goes with the next one, or is swept.
const DELETIONS: usize = 10;
/// How many times as many one sweep does.
const SWEEP_ROUNDS: usize = 50;
/// How often a search begins anew when what it has found is replaced before it could be read.
const ATTEMPTS: usize = 3;

const STAGED: u64 = 0;
const PUBLISHED: u64 = 1;

pub(super) struct TwoStores<T, V> {
    pub(super) tables: T,
    pub(super) index: V,
    pub(super) directory: Option<Arc<dyn TenantDirectory>>,
    pub(super) indexes: MetadataIndexes,
    pub(super) exactness: Exactness,
}

/// A chunk that may be among the best.
struct Candidate {
    id: u64,
    document: String,
    score: f64,
}

impl<T: Tables, V: VectorIndex> TwoStores<T, V> {
    async fn ask(&self, statement: Statement) -> Result<Vec<Row>, PortError> {
        let mut answers = self.tables.batch(vec![statement], QUESTION).await?;
        answers.pop().ok_or_else(|| corrupt("a statement has no answer"))
    }

    /// The namespace of the tenant's vectors.
    async fn namespace(&self, tenant: &TenantId) -> Result<String, PortError> {
        let Some(directory) = &self.directory else { return Ok(tenant.to_string()) };
        let found = directory.find(&TenantClaim::Id(tenant.clone())).await?;
        Ok(found.map_or_else(|| tenant.to_string(), |found| vector_namespace(found.vectorize_namespace())))
    }

    /// Puts vectors of the version that has this key.
    async fn put(
        &self,
        namespace: &str,
        key: &str,
        vectors: &[(u32, Vec<f32>)],
        metadata: Option<&Value>,
    ) -> Result<(), PortError> {
        let dimensions = self.index.dimensions().await?;
        for part in vectors.chunks(batch_size(dimensions)) {
            let batch = part.iter().map(|(place, values)| {
                Ok(Vector {
                    id: vector_id(key, *place),
                    namespace: namespace.to_owned(),
                    values: widened(values, dimensions).map_err(|error| PortError::unavailable(PORT, error))?,
                    metadata: metadata.cloned(),
                })
            });
            self.index.put(batch.collect::<Result<_, PortError>>()?).await?;
        }
        Ok(())
    }

    /// Puts the vectors of a staged version again, with the metadata that filters may ask for.
    async fn put_again(
        &self,
        tenant: &TenantId,
        version: VersionId,
        key: &str,
        chunks: u32,
        metadata: &Value,
    ) -> Result<(), PortError> {
        let namespace = self.namespace(tenant).await?;
        let step = u32::try_from(STAGED_AT_ONCE * 2).unwrap_or(u32::MAX);
        for from in (0..chunks).step_by(step as usize) {
            let rows = self.ask(statements::staged_vectors(tenant, version, from, from.saturating_add(step))).await?;
            let vectors = rows.iter().map(|row| Ok((row.small("ordinal")?, vector(row)?)));
            let vectors = vectors.collect::<Result<Vec<_>, PortError>>()?;
            self.put(&namespace, key, &vectors, Some(metadata)).await?;
        }
        Ok(())
    }

    /// Lets the index forget what these rows of the outbox say, a part of it at least.
    async fn forget(&self, tenant: &TenantId, outbox: &[Row]) -> Result<(), PortError> {
        let (mut left, mut failure, mut gone) = (DELETIONS, None, BTreeMap::new());
        'all: for row in outbox {
            let (key, chunks, mut done) = (row.text("vector_key")?, row.small("chunks")?, row.small("done")?);
            while done < chunks {
                if left == 0 {
                    break 'all;
                }
                left -= 1;
                let end = chunks.min(done.saturating_add(MOST_DELETED));
                if let Err(error) = self.index.delete((done..end).map(|place| vector_id(key, place)).collect()).await {
                    failure = Some(error);
                    break 'all;
                }
                done = end;
                gone.insert(key.to_owned(), done);
            }
        }
        if !gone.is_empty() {
            let gone: Vec<_> = gone.into_iter().collect();
            self.tables.batch(statements::gone(tenant, &gone), QUESTION).await?;
        }
        failure.map_or(Ok(()), Err)
    }

    /// The same after a change that has succeeded, which this does not undo.
    async fn tidy(&self, tenant: &TenantId, outbox: &[Row]) {
        if let Err(error) = self.forget(tenant, outbox).await {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(%tenant, error, "vectors that are not wanted any more stay until the next change or sweep");
        }
    }

    /// The best chunks for a vector, by their numbers.
    async fn candidates(&self, tenant: &TenantId, query: VectorQuery<'_>) -> Result<Vec<Candidate>, PortError> {
        let VectorQuery { vector: asked, filter, limit } = query;
        let rows = self.ask(statements::extent(tenant, filter, self.exactness.late)).await?;
        let Some(extent) = rows.first() else { return Ok(Vec::new()) };
        let (chunks, recent) = (extent.number("chunks")?, extent.number("recent")?);
        if chunks == 0 || extent.optional_number("dimensions")? != Some(asked.len() as u64) {
            return Ok(Vec::new());
        }
        let most = u64::from(self.exactness.chunks);
        let mut batch = Vec::new();
        let named;
        if chunks <= most {
            batch.push(statements::vectors(tenant, filter, Among::All));
        } else {
            named = self.named(tenant, query).await?;
            let named: Vec<_> = named.iter().filter_map(|id| parsed_id(id)).collect();
            batch.push(statements::named_vectors(tenant, filter, &named));
            if (1..=most).contains(&recent) {
                batch.push(statements::vectors(tenant, filter, Among::Recent(self.exactness.late)));
            }
        }
        let (mut seen, mut found) = (HashSet::new(), Vec::new());
        for row in self.tables.batch(batch, QUESTION).await?.iter().flatten() {
            let (id, vector) = (row.number("id")?, vector(row)?);
            // Of another size after all, where the corpus has moved to another model meanwhile.
            if vector.len() == asked.len() && seen.insert(id) {
                let (document, score) = (row.text("document")?.to_owned(), cosine(&vector, asked));
                found.push(Candidate { id, document, score });
            }
        }
        // Numbers of chunks of one document are in their order.
        found.sort_by(|one, other| {
            let by_score = other.score.total_cmp(&one.score);
            by_score.then_with(|| one.document.cmp(&other.document)).then(one.id.cmp(&other.id))
        });
        found.truncate(limit as usize);
        Ok(found)
    }

    /// What the index finds.
    async fn named(&self, tenant: &TenantId, query: VectorQuery<'_>) -> Result<Vec<String>, PortError> {
        let dimensions = self.index.dimensions().await?;
        let vector = widened(query.vector, dimensions).map_err(|error| PortError::unavailable(PORT, error))?;
        let namespace = self.namespace(tenant).await?;
        let mut named = self.index.nearest(&namespace, &vector, self.indexes.pushed(query.filter)).await?;
        named.truncate(MOST_NAMED as usize);
        Ok(named)
    }
}

#[async_trait]
impl<T: Tables, V: VectorIndex> Corpus for TwoStores<T, V> {
    async fn state(&self, tenant: &TenantId) -> Result<CorpusState, PortError> {
        let rows = self.ask(statements::state(tenant, self.exactness.late)).await?;
        let Some(row) = rows.first() else { return Ok(CorpusState::default()) };
        // So few are compared without the index, however late that is.
        let is_settling = row.number("recent")? > u64::from(self.exactness.chunks);
        Ok(CorpusState { is_settling, ..state(row)? })
    }

    async fn stage(
        &self,
        tenant: &TenantId,
        staging: Staging<'_>,
        chunks: &[EmbeddedChunk],
        now: Timestamp,
    ) -> Result<(), PortError> {
        let namespace = self.namespace(tenant).await?;
        for part in parts(chunks) {
            let answers = self.tables.batch(statements::stage(tenant, staging, part, now)?, CHANGE).await?;
            let version =
                answers.last().and_then(|rows| rows.first()).ok_or_else(|| corrupt("a version is missing"))?;
            // Who is published stays as it is.
            if version.number("state")? != STAGED {
                return Ok(());
            }
            // After D1: of vectors that are not in D1 nobody would know that they have to go.
            let vectors: Vec<_> = part.iter().map(|it| (it.chunk.ordinal, it.vector.clone())).collect();
            self.put(&namespace, version.text("vector_key")?, &vectors, None).await?;
        }
        Ok(())
    }

    async fn publish(
        &self,
        tenant: &TenantId,
        version: VersionId,
        document: &Document,
        space: &EmbeddingSpace,
        chunks: u32,
        now: Timestamp,
    ) -> Result<Result<CorpusGeneration, PublishError>, PortError> {
        if let Some(metadata) = self.indexes.carried(&document.metadata) {
            // Only what will be published, as far as that can be known: the transaction below decides.
            let rows = self.ask(statements::look(tenant, version)).await?;
            if let Some(row) = rows.first()
                && row.optional_number("state")? == Some(STAGED)
                && row.number("staged")? == u64::from(chunks)
                && state(row)?.space.is_none_or(|has| has == *space)
            {
                self.put_again(tenant, version, row.text("vector_key")?, chunks, &metadata).await?;
            }
        }
        let batch = statements::publish(tenant, version, document, space, chunks, now);
        let (look, outbox) = match self.tables.batch(batch, CHANGE).await {
            Ok(mut answers) => {
                let outbox = answers.pop().unwrap_or_default();
                (answers.pop().unwrap_or_default(), outbox)
            }
            // An answer that was lost on its way does not say that nothing was done.
            Err(error @ PortError::Unavailable { .. }) => {
                let unknown = |_| PortError::Timeout { port: PORT };
                let look = self.ask(statements::look(tenant, version)).await.map_err(unknown)?;
                if !look.first().is_some_and(|row| is_published(row, document)) {
                    return Err(error);
                }
                (look, Vec::new())
            }
            Err(error) => return Err(error),
        };
        let Some(row) = look.first() else { return Ok(Err(PublishError::NotStaged)) };
        if is_published(row, document) {
            let generation = state(row)?.generation;
            self.tidy(tenant, &outbox).await;
            return Ok(Ok(generation));
        }
        let other = state(row)?.space.filter(|has| has != space);
        Ok(Err(other.map_or(PublishError::NotStaged, |has| PublishError::OtherSpace { has })))
    }

    async fn discard(&self, tenant: &TenantId, version: VersionId) -> Result<(), PortError> {
        let mut answers = self.tables.batch(statements::discard(tenant, version), CHANGE).await?;
        self.tidy(tenant, &answers.pop().unwrap_or_default()).await;
        Ok(())
    }

    async fn delete(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, PortError> {
        let mut answers = self.tables.batch(statements::delete(tenant, document), CHANGE).await?;
        self.tidy(tenant, &answers.pop().unwrap_or_default()).await;
        Ok(answers.first().is_some_and(|deleted| !deleted.is_empty()))
    }

    async fn documents<'a>(
        &self,
        tenant: &TenantId,
        after: Option<&'a DocumentId>,
        limit: u32,
    ) -> Result<DocumentPage, PortError> {
        let mut rows = self.ask(statements::documents(tenant, after, limit)?).await?;
        let goes_on = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let documents = rows.iter().map(summary).collect::<Result<Vec<_>, _>>()?;
        let next = documents.last().filter(|_| goes_on).map(|last| last.document.id.clone());
        Ok(DocumentPage { documents, next })
    }

    async fn read(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        from: u32,
        limit: u32,
    ) -> Result<Option<DocumentPart>, PortError> {
        let answers = self.tables.batch(statements::part(tenant, document, from, limit), QUESTION).await?;
        let [documents, chunks] = answers.as_slice() else { return Err(corrupt("a statement has no answer")) };
        let Some(row) = documents.first() else { return Ok(None) };
        let version = row.text("version")?.parse().map_err(|_| corrupt("a version is none"))?;
        let chunks = chunks.iter().map(chunk).collect::<Result<_, _>>()?;
        Ok(Some(DocumentPart { summary: summary(row)?, version: VersionId::new(version), chunks }))
    }

    async fn nearest(&self, tenant: &TenantId, query: VectorQuery<'_>) -> Result<Vec<Passage>, PortError> {
        for attempt in 1..=ATTEMPTS {
            let best = self.candidates(tenant, query).await?;
            if best.is_empty() {
                return Ok(Vec::new());
            }
            let ids: Vec<u64> = best.iter().map(|it| it.id).collect();
            let rows = self.ask(statements::passages(tenant, &ids)).await?;
            // Otherwise a document was replaced in between, and neither its old version nor its new one would be found.
            if rows.len() == best.len() || attempt == ATTEMPTS {
                let rows = rows.iter().map(|row| Ok((row.number("id")?, row)));
                let rows = rows.collect::<Result<HashMap<_, _>, PortError>>()?;
                let found = best.iter().filter_map(|it| Some(passage(rows.get(&it.id)?, it.score)));
                return found.collect();
            }
        }
        Ok(Vec::new())
    }

    async fn matching(&self, tenant: &TenantId, query: KeywordQuery<'_>) -> Result<Vec<Passage>, PortError> {
        let KeywordQuery { words, filter, limit } = query;
        let rows = self.ask(statements::occurrences(tenant, words)).await?;
        let Some(first) = rows.first() else { return Ok(Vec::new()) };
        let (chunks, all_words) = (first.number("chunks")?, first.number("words")?);
        let statistics = Bm25::new(chunks, all_words);
        let containing = rows.iter().map(|row| Ok((row.text("word")?, row.number("containing")?)));
        let containing = containing.collect::<Result<HashMap<_, _>, PortError>>()?;
        let weigh = |word| statistics.weight(containing.get(String::as_str(word)).copied().unwrap_or(0));
        let weights: Vec<(&String, f64)> = words.iter().map(|word| (word, weigh(word))).collect();
        let rows = self.ask(statements::matching(tenant, filter, &statistics, &weights, limit)).await?;
        let found = rows.iter().filter_map(|row| {
            let text = row.text("text").ok()?;
            Some(passage(row, statements::score(&statistics, &weights, text)?))
        });
        let mut found = found.collect::<Result<Vec<_>, _>>()?;
        found.sort_by(|one, other| {
            let place = |it: &Passage| (it.document.id.clone(), it.chunk.ordinal);
            other.score.total_cmp(&one.score).then_with(|| place(one).cmp(&place(other)))
        });
        Ok(found)
    }

    async fn sweep(&self, tenant: &TenantId, before: Timestamp) -> Result<u64, PortError> {
        let mut answers = self.tables.batch(statements::sweep(tenant, before), CHANGE).await?;
        let mut outbox = answers.pop().unwrap_or_default();
        let swept = answers.get(1).and_then(|rows| rows.first()).map_or(Ok(0), |row| row.number("chunks"))?;
        for _ in 0..SWEEP_ROUNDS {
            if outbox.is_empty() {
                break;
            }
            self.forget(tenant, &outbox).await?;
            outbox = self.ask(statements::outbox(tenant)).await?;
        }
        Ok(swept)
    }
}

/// Chunks in pieces that one change can add.
fn parts(chunks: &[EmbeddedChunk]) -> impl Iterator<Item = &[EmbeddedChunk]> {
    let mut rest = chunks;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |it: &&EmbeddedChunk| {
            // Its words are there again, counted.
            bytes += 2 * it.chunk.text.len() + 6 * it.vector.len();
            bytes <= STAGED_BYTES
        };
        let count = rest.iter().take(STAGED_AT_ONCE).take_while(fits).count().max(1);
        let part;
        (part, rest) = rest.split_at_checked(count)?;
        Some(part)
    })
}

fn vector(row: &Row) -> Result<Vec<f32>, PortError> {
    statements::decoded(row.text("vector")?).ok_or_else(|| corrupt("a vector is none"))
}

fn state(row: &Row) -> Result<CorpusState, PortError> {
    let space = match (row.optional_text("model"), row.optional_number("dimensions")?) {
        (Some(model), Some(dimensions)) => Some(EmbeddingSpace {
            model: ModelId::new(&model).map_err(|_| corrupt("a name of a model cannot be one"))?,
            dimensions: u32::try_from(dimensions).map_err(|_| corrupt("a number is too large"))?,
        }),
        _ => None,
    };
    Ok(CorpusState { generation: CorpusGeneration(row.number("generation")?), space, is_settling: false })
}

fn document(row: &Row) -> Result<Document, PortError> {
    let metadata = Metadata::new(row.json("metadata")?).map_err(|error| PortError::corrupt(PORT, error))?;
    Ok(Document {
        id: DocumentId::new(row.text("document")?).map_err(|_| corrupt("a name of a document cannot be one"))?,
        source: row.optional_text("source"),
        title: row.optional_text("title"),
        url: row.optional_text("url"),
        metadata,
    })
}

/// Whether a version is the one of the document that is found.
fn is_published(row: &Row, document: &Document) -> bool {
    let is_live = matches!(row.optional_number("state"), Ok(Some(PUBLISHED)));
    is_live && row.text("document").is_ok_and(|name| name == document.id.as_str())
}

fn summary(row: &Row) -> Result<DocumentSummary, PortError> {
    let updated_at = Timestamp::from_millis(row.number("published_at")?);
    Ok(DocumentSummary { document: document(row)?, chunks: row.small("chunks")?, updated_at })
}

fn passage(row: &Row, score: f64) -> Result<Passage, PortError> {
    Ok(Passage { document: document(row)?, chunk: chunk(row)?, score })
}

fn chunk(row: &Row) -> Result<Chunk, PortError> {
    Ok(Chunk { ordinal: row.small("ordinal")?, start: row.number("start")?, text: row.text("text")?.to_owned() })
}

#[cfg(test)]
mod tests;
