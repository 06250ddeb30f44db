//! What is written to the console: a line of JSON for each event, in the shape of the native server's.

use std::fmt::{self, Debug};
use std::panic;
use std::sync::Arc;

use enigma_cloudflare::WorkerClock;
use enigma_core::ports::Clock;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry, SpanRef};
use worker::{console_error, console_log, console_warn};

/// Begins to log. An isolate does so once: what later calls say does not count.
///
/// A panic is logged with its place and without its message, which may quote what somebody wrote; so
/// the SDK's own hook, which tells all, goes.
pub(crate) fn start(level: Level) {
    let lines = Lines { clock: Arc::new(WorkerClock), write: to_console };
    if tracing::subscriber::set_global_default(Registry::default().with(filter(level)).with(lines)).is_err() {
        return;
    }
    panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string);
        tracing::error!(at, "a task has panicked");
    }));
}

/// Of other people's crates only what went wrong: what they say of their work may hold headers and bodies.
fn filter(level: Level) -> Targets {
    Targets::new().with_default(LevelFilter::WARN.min(LevelFilter::from_level(level))).with_target("enigma", level)
}

/// By level, so that the platform's own filters work.
fn to_console(level: Level, line: &str) {
    match level {
        Level::ERROR => console_error!("{line}"),
        Level::WARN => console_warn!("{line}"),
        _ => console_log!("{line}"),
    }
}

/// Makes a line of each event, and of the innermost span that it is in.
struct Lines<W> {
    clock: Arc<dyn Clock>,
    write: W,
}

/// The fields of a span or an event.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Fn(Level, &str) + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let line = Line {
            timestamp: self.clock.now().to_rfc3339(),
            level: *metadata.level(),
            fields,
            target: metadata.target(),
            span: context.event_span(event),
        };
        // All of it is texts, numbers and switches.
        if let Ok(line) = serde_json::to_string(&line) {
            (self.write)(*metadata.level(), &line);
        }
    }
}

struct Line<'a, S: for<'b> LookupSpan<'b>> {
    timestamp: String,
    level: Level,
    fields: Fields,
    target: &'static str,
    span: Option<SpanRef<'a, S>>,
}

impl<S: for<'b> LookupSpan<'b>> Serialize for Line<'_, S> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        let mut line = serializer.serialize_map(None)?;
        line.serialize_entry("timestamp", &self.timestamp)?;
        line.serialize_entry("level", self.level.as_str())?;
        for (name, value) in &self.fields.0 {
            line.serialize_entry(name, value)?;
        }
        line.serialize_entry("target", self.target)?;
        if let Some(span) = &self.span {
            let extensions = span.extensions();
            let mut fields = extensions.get::<Fields>().map(|fields| fields.0.clone()).unwrap_or_default();
            fields.insert("name".to_owned(), span.name().into());
            line.serialize_entry("span", &fields)?;
        }
        line.end()
    }
}

impl Fields {
    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.insert(field, format!("{value:?}"));
    }
}

impl<W> Debug for Lines<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use enigma_core::Timestamp;
    use futures_util::future::BoxFuture;
    use serde_json::json;
    use std::error::Error;
    use std::sync::Mutex;
    use std::time::Duration;

    struct Noon;

    impl Clock for Noon {
        fn now(&self) -> Timestamp {
            Timestamp::parse_rfc3339("2026-11-23T12:00:00Z").unwrap()
        }

        fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
            Box::pin(std::future::pending())
        }
    }

    /// What `act` logs at `level`.
    fn logged(level: Level, act: impl FnOnce()) -> Vec<(Level, String)> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&lines);
        let write = move |level, line: &str| written.lock().unwrap().push((level, line.to_owned()));
        let subscriber = Registry::default().with(filter(level)).with(Lines { clock: Arc::new(Noon), write });
        tracing::subscriber::with_default(subscriber, act);
        lines.lock().unwrap().clone()
    }

    #[test]
    fn a_line_is_that_of_the_native_server() {
        let lines = logged(Level::INFO, || {
            let span =
                tracing::info_span!("request", trace_id = %"t-1", method = "GET", tenant = tracing::field::Empty);
            let entered = span.enter();
            tracing::info!(status = 200, latency_ms = 1.5, cached = true, "request answered");
            span.record("tenant", "acme");
            let cause: &dyn Error = &fmt::Error;
            tracing::error!(error = cause, "a \"text\"");
            drop(entered);
            tracing::warn!(problem = ?Some(1), "outside");
        });
        let levels: Vec<_> = lines.iter().map(|(level, _)| *level).collect();
        assert_eq!(levels, [Level::INFO, Level::ERROR, Level::WARN]);
        let read: Vec<Value> = lines.iter().map(|(_, line)| serde_json::from_str(line).unwrap()).collect();
        let head =
            |level: &str| json!({ "timestamp": "2026-11-23T12:00:00Z", "level": level, "target": module_path!() });
        let with = |mut head: Value, more: Value| {
            head.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            head
        };
        assert_eq!(
            read,
            [
                with(
                    head("INFO"),
                    json!({
                        "message": "request answered", "status": 200, "latency_ms": 1.5, "cached": true,
                        "span": { "name": "request", "trace_id": "t-1", "method": "GET" },
                    })
                ),
                with(
                    head("ERROR"),
                    json!({
                        "message": "a \"text\"", "error": fmt::Error.to_string(),
                        "span": { "name": "request", "trace_id": "t-1", "method": "GET", "tenant": "acme" },
                    })
                ),
                with(head("WARN"), json!({ "message": "outside", "problem": "Some(1)" })),
            ]
        );
        assert!(
            lines[0].1.starts_with("{\"timestamp\":\"2026-11-23T12:00:00Z\",\"level\":\"INFO\","),
            "{}",
            lines[0].1
        );
    }

    #[test]
    fn only_the_innermost_span_is_told() {
        let lines = logged(Level::DEBUG, || {
            let _outer = tracing::info_span!("outer", a = 1).entered();
            let _inner = tracing::debug_span!("inner", b = 2).entered();
            tracing::debug!("here");
        });
        let read: Value = serde_json::from_str(&lines[0].1).unwrap();
        assert_eq!(read["span"], json!({ "name": "inner", "b": 2 }));
    }

    #[test]
    fn other_crates_only_warn_and_the_level_counts() {
        let log = || {
            tracing::info!(target: "worker", "theirs");
            tracing::warn!(target: "worker", "theirs");
            tracing::debug!("ours");
            tracing::error!("ours");
        };
        let count = |level| logged(level, log).len();
        assert_eq!([Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG].map(count), [1, 2, 2, 3]);
    }
}
