//! `ingest_docs`: documents in, found from then on.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::definition::{Permission, Tool, ToolDefinition};
use super::error::ToolFailure;
use super::run::ToolRun;
use super::schema::Violation;
use super::tag_chunk_docs::{chunking, chunking_schema};
use crate::chat::ChatError;
use crate::id::{InvalidId, ModelId, ToolName};
use crate::ingest::{IngestCommand, IngestService};
use crate::retrieval::{ChunkingOptions, Document, DocumentId, Metadata};
use crate::search::RetrievalError;
use crate::tenant::Scope;

/// The most documents of a call.
const MAX_DOCUMENTS: usize = 16;
/// The longest title, source or address, in characters.
const MAX_NAME_CHARS: usize = 2000;
/// What a document that does not make it in time has for leaving nothing behind.
const TIDYING: Duration = Duration::from_secs(2);

/// Takes documents in, in the same way as `POST /ingest` does.
#[derive(Clone)]
pub struct IngestDocs {
    ingest: IngestService,
}

impl IngestDocs {
    /// The tool over `ingest`.
    pub fn new(ingest: IngestService) -> Self {
        Self { ingest }
    }
}

/// The documents of parameters that keep to the schema, with their texts.
fn documents(params: &Value) -> Result<Vec<(Document, String)>, Vec<Violation>> {
    let given = params["documents"].as_array().map(Vec::as_slice).unwrap_or_default();
    let (mut documents, mut violations): (Vec<(Document, String)>, _) = (Vec::new(), Vec::new());
    for (index, document) in given.iter().enumerate() {
        let mut wrong = |name: &str, message: String| {
            violations.push(Violation::new(format!("/documents/{index}/{name}"), message));
        };
        let named = |name: &str| document[name].as_str().map(str::to_owned);
        let id = DocumentId::new(document["docId"].as_str().unwrap_or_default());
        let metadata = document["metadata"].as_object().cloned().map(Metadata::new).transpose();
        match (id, metadata) {
            (Ok(id), Ok(metadata)) if documents.iter().all(|(known, _)| known.id != id) => {
                let metadata = metadata.unwrap_or_default();
                let (source, title, url) = (named("source"), named("title"), named("url"));
                documents.push((Document { id, source, title, url, metadata }, named("text").unwrap_or_default()));
            }
            (Ok(_), Ok(_)) => wrong("docId", "must be another one than those before".to_owned()),
            (id, metadata) => {
                let told = |error: InvalidId| wrong("docId", error.to_string());
                let _ = id.map_err(told);
                let _ = metadata.map_err(|error| wrong("metadata", error.to_string()));
            }
        }
    }
    if violations.is_empty() { Ok(documents) } else { Err(violations) }
}

#[async_trait]
impl Tool for IngestDocs {
    fn definition(&self) -> ToolDefinition {
        let name = json!({ "type": "string", "minLength": 1, "maxLength": MAX_NAME_CHARS });
        ToolDefinition {
            name: ToolName::new("ingest_docs").expect("it keeps to the alphabet"),
            description:
                "Takes documents in, so that searches find them. A document replaces the one of the same docId."
                    .to_owned(),
            parameters: json!({
                "type": "object",
                "properties": {
                    "documents": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {
                                "docId": { "type": "string", "minLength": 1 },
                                "text": { "type": "string", "minLength": 1, "pattern": "\\S" },
                                "source": name,
                                "title": name,
                                "url": name,
                                "metadata": { "type": "object" },
                            },
                            "required": ["docId", "text"],
                            "additionalProperties": false,
                        },
                        "minItems": 1,
                        "maxItems": MAX_DOCUMENTS,
                    },
                    "chunking": chunking_schema(),
                },
                "required": ["documents"],
                "additionalProperties": false,
            }),
            output: json!({
                "type": "object",
                "properties": {
                    "documents": { "type": "array", "items": {
                        "type": "object",
                        "properties": {
                            "docId": { "type": "string" },
                            "status": { "enum": ["ingested", "failed"] },
                            "chunks": { "type": "integer", "minimum": 0 },
                            "error": { "type": "string", "description": "Why it failed; the older version stays then." },
                        },
                        "required": ["docId", "status", "chunks"],
                        "additionalProperties": false,
                    } },
                    "embeddingModelId": { "type": "string" },
                },
                "required": ["documents", "embeddingModelId"],
                "additionalProperties": false,
            }),
            timeout: Duration::from_secs(110),
            permissions: vec![Permission::Scope(Scope::Ingest)],
            takes_documents: true,
        }
    }

    fn estimate(&self, params: &Value) -> u64 {
        let options = chunking(params, "").unwrap_or_default();
        let of = |name: &str, document: &Value| document[name].as_str().unwrap_or_default().chars().count();
        let documents = params["documents"].as_array().map(Vec::as_slice).unwrap_or_default();
        // What overlaps is embedded twice, and a title with each chunk. At least one: it cannot do without a permit.
        let tokens = documents.iter().map(|document| {
            let (text, title) = (of("text", document), of("title", document));
            let chunks = text / (options.max_size() - options.overlap()).max(1) + 1;
            (text + chunks * (options.overlap() + title + 2)) as u64 / 4 + chunks as u64
        });
        tokens.sum::<u64>().max(1)
    }

    async fn run(&self, run: &ToolRun<'_>, params: &Value) -> Result<Value, ToolFailure> {
        let chunking = chunking(params, "/chunking/overlap")?;
        let documents = documents(params).map_err(ToolFailure::Invalid)?;
        let (mut told, mut model, mut failure) = (Vec::new(), None, None);
        for (document, text) in documents {
            let id = document.id.clone();
            match self.take_in(run, document, text, chunking).await {
                Ok((chunks, embedder)) => {
                    told.push(json!({ "docId": id, "status": "ingested", "chunks": chunks }));
                    model = Some(embedder);
                }
                Err(error) => {
                    told.push(json!({ "docId": id, "status": "failed", "chunks": 0, "error": sentence(&error) }));
                    failure = Some(error);
                }
            }
        }
        match (model, failure) {
            (Some(model), _) => Ok(json!({ "documents": told, "embeddingModelId": model })),
            // Of nothing that was done there is nothing to tell.
            (None, Some(error)) => Err(error.into()),
            (None, None) => Err(ToolFailure::Other("there were no documents".to_owned())),
        }
    }
}

impl IngestDocs {
    async fn take_in(
        &self,
        run: &ToolRun<'_>,
        document: Document,
        text: String,
        chunking: ChunkingOptions,
    ) -> Result<(u32, ModelId), RetrievalError> {
        let permit = run.permit.ok_or(RetrievalError::Lost)?;
        let command = IngestCommand {
            request: run.request,
            trace: run.trace.clone(),
            traceparent: run.traceparent.map(str::to_owned),
            route: run.route,
            caller: run.caller.clone(),
            document,
            text,
            chunking,
            idempotency: None,
        };
        let time = run.deadline.since(run.now()).saturating_sub(TIDYING);
        if let Some(model) = self.ingest.embedding_model(run.context.tenant()) {
            run.asked.note(model);
        }
        let context = run.context.clone();
        let done = self.ingest.ingest_within(context, command, time, permit, run.tally).await?;
        Ok((done.chunks, done.model))
    }
}

/// What a client is told of a document that failed.
fn sentence(error: &RetrievalError) -> String {
    match error {
        RetrievalError::NoEmbeddingModel => "the tenant has no embedding model".to_owned(),
        RetrievalError::OtherSpace { .. } => {
            "the tenant's documents have vectors of another embedding model".to_owned()
        }
        RetrievalError::NoText => "the document has no text".to_owned(),
        RetrievalError::TooManyChunks { chunks, most } => {
            format!("the text makes {chunks} chunks, and a document may have {most}")
        }
        RetrievalError::Common(ChatError::TimedOut) => "it took too long".to_owned(),
        RetrievalError::Common(_) | RetrievalError::Lost => "it could not be taken in now".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_documents_is_named_with_its_place() {
        let params = json!({ "documents": [
            { "docId": "a", "text": "x", "title": "A", "metadata": { "year": 2024 } },
            { "docId": "a", "text": "x" },
            { "docId": "\u{0}", "text": "x", "metadata": { "x": "y".repeat(100_000) } },
        ] });
        let places: Vec<String> = documents(&params).unwrap_err().into_iter().map(|wrong| wrong.pointer).collect();
        assert_eq!(places, ["/documents/1/docId", "/documents/2/docId", "/documents/2/metadata"]);
        let fine = documents(&json!({ "documents": [params["documents"][0]] })).unwrap();
        assert_eq!(fine[0].0.title.as_deref(), Some("A"));
        assert_eq!(fine[0].1, "x");
    }
}
