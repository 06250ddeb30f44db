//! One of the two hosts, and what it answers, with all that it made up masked.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::process::{Command, Stdio};

use enigma_conformance::client::Reply;
use enigma_conformance::sse::{Event, Reader};
use enigma_conformance::upstream::PATIENCE;
use enigma_conformance::{Api, Upstream, raw};
use http::HeaderMap;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

use super::script::{Ask, CLIENTS, FAILING, TRACE};
use super::services::TOOL_MODELS;

/// One of the two.
pub(super) struct Side {
    name: &'static str,
    base_url: String,
    api: Api,
    pub(super) upstream: Upstream,
    /// Ids that it made up, by where they were first seen.
    ids: HashMap<Uuid, String>,
    pub(super) step: usize,
    kept: HashMap<&'static str, String>,
    held: HashMap<&'static str, (Reply, Vec<Event>)>,
}

impl Side {
    pub(super) fn new(name: &'static str, base_url: &str, upstream: Upstream) -> Self {
        for (model, script) in FAILING.into_iter().chain(TOOL_MODELS) {
            upstream.script(model, script);
        }
        upstream.script("same-spare-500", &["[[status 500]]"]);
        upstream.script("same-spare-404", &["[[status 404]]"]);
        let (ids, kept, held) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { name, base_url: base_url.to_owned(), api: Api::new(base_url), upstream, ids, step: 0, kept, held }
    }

    async fn begin(&mut self, ask: &Ask) -> Reply {
        let mut api = self.api.clone();
        for (name, value) in &ask.headers {
            api = api.with_bytes(name, value);
        }
        let mut path = ask.path.clone();
        for (name, value) in &self.kept {
            path = path.replace(&format!("{{{name}}}"), value);
        }
        let body = ask.body.as_ref().map(|(kind, bytes)| (kind.as_str(), bytes.clone()));
        let reply = api.begin(ask.method.clone(), &path, body).await;
        reply.unwrap_or_else(|error| panic!("the {} does not answer {} {path}: {error:?}", self.name, ask.method))
    }

    pub(super) async fn ask(&mut self, ask: &Ask) -> Value {
        let reply = self.begin(ask).await;
        let (status, headers) = (reply.status, headers(&reply.headers));
        let mut body = reply.bytes().await.unwrap();
        if headers.iter().any(|(name, value)| name == "content-encoding" && value == "gzip") {
            body = unzipped(&body);
        }
        if let Some((name, place)) = ask.keep {
            let json: Value = serde_json::from_slice(&body).unwrap_or_default();
            let found = json.pointer(place).and_then(Value::as_str).map(str::to_owned);
            self.kept.insert(name, found.unwrap_or_else(|| panic!("the {} says no {place}: {json}", self.name)));
        }
        self.seen(status, &headers, &body)
    }

    pub(super) async fn raw(&mut self, request: &str) -> Value {
        let request = request.replace("HOST", raw::authority(&self.base_url));
        let bytes: Vec<u8> = request.chars().map(|c| u8::try_from(c).unwrap()).collect();
        let mut connection = raw::connect(&self.base_url).await;
        connection.write_all(&bytes).await.unwrap();
        let mut read = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, connection.read_to_end(&mut read)).await;
        assert!(ended.is_ok(), "the {} keeps the connection open: {request}", self.name);
        let end = read.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("the {} does not answer: {request}", self.name));
        let head = String::from_utf8(read[..end].to_vec()).unwrap();
        let status = raw::status(&head);
        let fields = head.lines().skip(1).map(|line| line.split_once(':').unwrap());
        let mut headers: Vec<_> =
            fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        headers.sort_by(|(one, _), (other, _)| one.cmp(other));
        let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
        let body = if chunked { unchunked(&read[end + 4..]) } else { read[end + 4..].to_vec() };
        self.seen(status, &headers, &body)
    }

    pub(super) async fn hold(&mut self, name: &'static str, ask: &Ask) -> Value {
        let mut reply = self.begin(ask).await;
        let seen = self.seen(reply.status, &headers(&reply.headers), b"");
        let first = reply.next().await.expect("the stream ended before its first event");
        self.held.insert(name, (reply, vec![first]));
        seen
    }

    pub(super) async fn release(&mut self, name: &'static str) -> Value {
        self.upstream.open(name);
        let (reply, mut events) = self.held.remove(name).unwrap();
        events.extend(reply.rest().await);
        events.iter().map(|event| self.event(event)).collect()
    }

    /// An answer, with what the host made up masked.
    fn seen(&mut self, status: u16, headers: &[(String, String)], body: &[u8]) -> Value {
        let mut masked: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for (name, value) in headers {
            let value = match name.as_str() {
                "x-ai-latency-ms" => {
                    Value::from(format!("{} ms", if value.parse::<u64>().is_ok() { "some" } else { value }))
                }
                "ratelimit" => {
                    let (rest, seconds) = value.rsplit_once(";t=").unwrap_or((value, ""));
                    masked.entry("ratelimit t".to_owned()).or_default().push(seconds.into());
                    rest.into()
                }
                _ => self.mask(name, value).into(),
            };
            masked.entry(name.clone()).or_default().push(value);
        }
        let is = |kind: &str| headers.iter().any(|(name, value)| name == "content-type" && value.starts_with(kind));
        let text = String::from_utf8_lossy(body);
        let body = if is("text/event-stream") {
            let mut reader = Reader::default();
            reader.push(body);
            assert!(reader.rest().is_empty(), "half an event: {text}");
            let mut events: Vec<_> = std::iter::from_fn(|| reader.pop()).collect();
            // How often there was silence is a matter of time; that there was is none.
            events.dedup_by(|one, other| one.comment.is_some() && one.comment == other.comment);
            events.iter().map(|event| self.event(event)).collect()
        } else {
            self.text(&text)
        };
        json!({ "status": status, "headers": masked, "body": body })
    }

    fn event(&mut self, event: &Event) -> Value {
        let data = event.data.as_deref().map(|data| self.text(data));
        json!({ "id": event.id, "event": event.name, "comment": event.comment, "data": data })
    }

    /// JSON as its value and the order of its members; any other text as it is.
    fn text(&mut self, text: &str) -> Value {
        match serde_json::from_str(text) {
            Ok(value) => json!({ "json": self.value("", value), "members": members(text) }),
            Err(_) => json!({ "text": text }),
        }
    }

    fn value(&mut self, name: &str, value: Value) -> Value {
        match (name, value) {
            ("latencyMs" | "durationMs", Value::Number(_)) => "some ms".into(),
            ("created", Value::Number(at)) if at.as_u64() != Some(0) => "some time".into(),
            ("timestamp" | "createdAt" | "updatedAt", Value::Number(_)) => "some time".into(),
            ("timestamp" | "createdAt" | "updatedAt", Value::String(text)) => {
                text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect::<String>().into()
            }
            ("nextCursor", Value::String(text)) => match text.split_once('_') {
                Some((time, id)) => format!("{}_{}", "0".repeat(time.len()), self.mask(name, id)).into(),
                None => text.into(),
            },
            (_, Value::String(text)) => self.mask(name, &text).into(),
            (_, Value::Array(values)) => {
                let values = values.into_iter().enumerate();
                values.map(|(n, value)| self.value(&format!("{name} {n}"), value)).collect()
            }
            (_, Value::Object(members)) => {
                let members = members.into_iter().map(|(name, value)| (name.clone(), self.value(&name, value)));
                Value::Object(members.collect::<Map<_, _>>())
            }
            (_, value) => value,
        }
    }

    /// Ids that the host made up, by where they were first seen: the same one twice is the same place twice.
    fn mask(&mut self, place: &str, text: &str) -> String {
        let (kind, rest) = text.split_at(text.strip_prefix("chatcmpl-").map_or(0, |_| "chatcmpl-".len()));
        match Uuid::parse_str(rest) {
            Ok(id) if ![CLIENTS, TRACE].iter().any(|known| rest.to_ascii_lowercase().starts_with(known)) => {
                let first = || format!("first seen in answer {}, in {place}", self.step);
                format!("{kind}id of {} characters, {}", rest.len(), self.ids.entry(id).or_insert_with(first))
            }
            _ => text.to_owned(),
        }
    }
}

/// Sorted by name: what two maps begin with is chance.
fn headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut all: Vec<_> = headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    all
}

/// By the program that the Worker's build measures its size with, too.
fn unzipped(bytes: &[u8]) -> Vec<u8> {
    let mut gzip =
        Command::new("gzip").arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("gzip runs");
    // Dropped here, which is how it learns of the end; what is sent fits into a pipe.
    gzip.stdin.take().unwrap().write_all(bytes).unwrap();
    gzip.wait_with_output().unwrap().stdout
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        whole.extend_from_slice(&bytes[end + 2..end + 2 + length]);
        bytes = &bytes[end + 2 + length + 2..];
    }
    whole
}

/// The names of members, in the order in which they stand in the text of JSON.
fn members(text: &str) -> Vec<&str> {
    let (mut names, mut rest) = (Vec::new(), text);
    while let Some(start) = rest.find('"') {
        rest = &rest[start + 1..];
        let mut escaped = false;
        let end = rest.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let Some(end) = end else { break };
        if rest[end + 1..].trim_start().starts_with(':') {
            names.push(&rest[..end]);
        }
        rest = &rest[end + 1..];
    }
    names
}
