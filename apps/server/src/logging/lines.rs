//! Events as lines of JSON: one object a line, with the fields of the event and of the span around it.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::writer::LogWriter;

/// Writes every event to `writer`.
pub(super) struct JsonLines {
    writer: Arc<LogWriter>,
}

impl JsonLines {
    pub(super) fn new(writer: Arc<LogWriter>) -> Self {
        Self { writer }
    }
}

/// The fields of a span, as the inside of a JSON object.
struct SpanFields(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for JsonLines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = String::with_capacity(256);
        attributes.record(&mut Members(&mut fields));
        span.extensions_mut().insert(SpanFields(fields));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(SpanFields(fields)) = span.extensions_mut().get_mut() {
            values.record(&mut Members(fields));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = String::with_capacity(512);
        line.push_str("{\"timestamp\":\"");
        // It writes to a text, which cannot fail.
        let _ = SystemTime.format_time(&mut Writer::new(&mut line));
        line.push_str("\",\"level\":\"");
        line.push_str(metadata.level().as_str());
        line.push('"');
        event.record(&mut Members(&mut line));
        line.push_str(",\"target\":");
        push_text(&mut line, metadata.target());
        if let Some(span) = context.event_span(event) {
            line.push_str(",\"span\":{\"name\":");
            push_text(&mut line, span.name());
            if let Some(SpanFields(fields)) = span.extensions().get() {
                line.push_str(fields);
            }
            line.push('}');
        }
        line.push_str("}\n");
        self.writer.write(line.as_bytes());
    }
}

/// Writes fields as further members of an object.
struct Members<'a>(&'a mut String);

impl Members<'_> {
    fn name(&mut self, field: &Field) {
        self.0.push(',');
        push_text(self.0, field.name());
        self.0.push(':');
    }

    fn plain(&mut self, field: &Field, value: impl fmt::Display) {
        self.name(field);
        let _ = write!(self.0, "{value}");
    }
}

impl Visit for Members<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.name(field);
        push_debug(self.0, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.name(field);
        push_text(self.0, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() { self.plain(field, value) } else { self.plain(field, "null") }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.name(field);
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        push_text(self.0, &text);
    }
}

/// A text as a JSON string. No line feed or other control character is left in it, so nobody can forge a line.
fn push_text(line: &mut String, text: &str) {
    line.push('"');
    let _ = Escape(line).write_str(text);
    line.push('"');
}

fn push_debug(line: &mut String, value: &dyn fmt::Debug) {
    line.push('"');
    let _ = write!(Escape(line), "{value:?}");
    line.push('"');
}

/// Escapes what is written through it for the inside of a JSON string (RFC 8259, section 7).
struct Escape<'a>(&'a mut String);

impl fmt::Write for Escape<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        // The bytes that have to be looked at: those of control characters and of the two that JSON needs, and the one that the
        // control characters beyond ASCII begin with.
        let suspect = |byte: u8| byte < b' ' || matches!(byte, b'"' | b'\\' | 0x7f | 0xc2);
        while let Some(at) = rest.bytes().position(suspect) {
            let (plain, from) = rest.split_at(at);
            self.0.push_str(plain);
            let mut characters = from.chars();
            match characters.next() {
                Some('"') => self.0.push_str("\\\""),
                Some('\\') => self.0.push_str("\\\\"),
                Some('\n') => self.0.push_str("\\n"),
                Some('\r') => self.0.push_str("\\r"),
                Some('\t') => self.0.push_str("\\t"),
                Some(other) if other.is_control() => write!(self.0, "\\u{:04x}", u32::from(other))?,
                Some(other) => self.0.push(other),
                None => {}
            }
            rest = characters.as_str();
        }
        self.0.push_str(rest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use tracing_subscriber::layer::SubscriberExt;

    fn lines(work: impl FnOnce()) -> Vec<Value> {
        let (writer, written) = LogWriter::in_memory();
        let subscriber = tracing_subscriber::registry().with(JsonLines::new(Arc::clone(&writer)));
        tracing::subscriber::with_default(subscriber, work);
        writer.flush();
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }

    #[test]
    fn an_event_has_its_fields_and_those_of_its_span() {
        let found = lines(|| {
            let span = tracing::info_span!("request", trace_id = %"abc", tenant = tracing::field::Empty);
            let _entered = span.enter();
            span.record("tenant", "acme");
            tracing::warn!(status = 404_u64, ok = false, load = 0.5, cause = None::<&str>, "request refused");
        });
        assert_eq!(found.len(), 1);
        let line = &found[0];
        assert_eq!((&line["level"], &line["message"]), (&"WARN".into(), &"request refused".into()));
        assert_eq!((&line["status"], &line["ok"], &line["load"]), (&404.into(), &false.into(), &0.5.into()));
        assert_eq!(line["span"]["name"], "request");
        assert_eq!((&line["span"]["trace_id"], &line["span"]["tenant"]), (&"abc".into(), &"acme".into()));
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z') && line.get("cause").is_none());
    }

    #[test]
    fn no_text_can_forge_a_line_or_a_member() {
        let evil = "x £ é\n{\"level\":\"ERROR\"}\r\u{1b}[31m\",\"level\":\"ERROR\u{85}\\";
        let found = lines(|| tracing::info!(text = evil, shown = %evil, debugged = ?evil, "{evil}"));
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0]["level"], &found[0]["text"]), (&"INFO".into(), &evil.into()));
        assert_eq!((&found[0]["shown"], &found[0]["message"]), (&evil.into(), &evil.into()));
    }

    #[test]
    fn an_error_is_told_with_its_causes() {
        let cause = std::io::Error::other("disk full");
        let error = std::io::Error::other(cause);
        let found = lines(|| tracing::error!(error = &error as &dyn std::error::Error, "failed"));
        assert_eq!(found[0]["error"], "disk full");
    }
}
