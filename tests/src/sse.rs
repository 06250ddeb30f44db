//! Server-sent events, with the times at which they came.

use std::collections::VecDeque;

use serde_json::Value;
use tokio::time::Instant;

/// An event, or a comment between events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its `id`.
    pub id: Option<String>,
    /// Its `event`.
    pub name: Option<String>,
    /// Its `data`.
    pub data: Option<String>,
    /// What stood behind a colon at the start of a line.
    pub comment: Option<String>,
    /// When it was whole.
    pub at: Instant,
}

impl Event {
    /// Its data as JSON.
    pub fn json(&self) -> Value {
        let data = self.data.as_deref().unwrap_or_else(|| panic!("an event without data: {self:?}"));
        serde_json::from_str(data).unwrap_or_else(|error| panic!("{error} in {data}"))
    }

    /// The text of a piece of an answer, on either face.
    pub fn text(&self) -> Option<String> {
        if self.name.is_some() || self.data.as_deref().is_none_or(|data| data == "[DONE]") {
            return None;
        }
        let json = self.json();
        let text = json["content"].as_str().or(json["choices"][0]["delta"]["content"].as_str());
        text.map(str::to_owned)
    }
}

/// Reads events out of bytes.
#[derive(Debug, Default)]
pub struct Reader {
    buffer: Vec<u8>,
    events: VecDeque<Event>,
}

impl Reader {
    /// Takes more bytes, split anywhere.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        while let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
            self.events.push_back(parse(&block));
        }
    }

    /// The next event that is whole.
    pub fn pop(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What is left of an event that never became whole.
    pub fn rest(&self) -> &[u8] {
        &self.buffer
    }
}

fn parse(block: &[u8]) -> Event {
    let text = std::str::from_utf8(block).unwrap();
    let mut event = Event { id: None, name: None, data: None, comment: None, at: Instant::now() };
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => event.comment = Some(value.to_owned()),
            "id" => event.id = Some(value.to_owned()),
            "event" => event.name = Some(value.to_owned()),
            "data" => event.data.get_or_insert_default().push_str(value),
            _ => panic!("a line that is no field of an event: {line:?}"),
        }
    }
    event
}
