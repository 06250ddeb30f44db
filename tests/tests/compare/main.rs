//! The same requests to the native server and to the Worker, one after the other: equal status, headers and bodies.
//!
//! What a host makes up (ids, times, latencies) is masked; everything else counts, the order of members in JSON included. What the
//! platforms make different stands in [`DIFFERENCES`], each with its row in `docs/architecture/hosts.md`. Nothing else may differ.

#![expect(clippy::unwrap_used, clippy::panic, reason = "all of this is test code: a panic is how it reports")]

mod retrieval;
mod script;
mod services;
mod side;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use enigma_conformance::{Server, ServerConfig, Tenant, Upstream, Worker, WorkerConfig, cases};
use serde_json::{Value, json};

use self::script::{Ask, Step, head, script, session, tenants};
use self::side::Side;

/// What the platforms make different. Everything else is the same.
const DIFFERENCES: &[(&str, Differs)] = &[
    ("framing of bodies", Headers(&["content-length", "transfer-encoding"])),
    ("`date`", Headers(&["date"])),
    ("compression", Headers(&["content-encoding"])),
    ("repeated headers", Statuses("GET /health", &[KEY, "x-tenant-id: same", "x-tenant-id: same"], [400, 404])),
    ("repeated headers", Statuses("GET /health", &[KEY, KEY], [400, 401])),
    ("repeated headers", Statuses("GET /health", &[KEY, "x-user-id: ada", "x-user-id: grace"], [400, 200])),
    ("header values that are no UTF-8", Statuses("POST /chat", &[KEY, "x-user-id: \u{fc}mit"], [400, 200])),
    ("`.` and `..` in a path", Statuses("GET /./health", &[KEY], [404, 200])),
    ("`.` and `..` in a path", Statuses("GET /chat/../health", &[KEY], [404, 200])),
    ("a whole URL in the request line", Statuses("GET http://one.test/health", &[KEY], [403, 200])),
    ("a method that nobody has heard of", Statuses("get /health", &[KEY], [405, 501])),
    ("`OPTIONS *`", Statuses("OPTIONS *", &[], [404, 500])),
    ("a message without text, as the model sees it", NoText),
];

/// What differs, by the row of `docs/architecture/hosts.md` that tells of it.
enum Differs {
    /// These headers are not compared.
    Headers(&'static [&'static str]),
    /// A request, and the status of the native server and of the Worker. A character stands for the byte of its number.
    Statuses(&'static str, &'static [&'static str], [u16; 2]),
    /// `null` and the empty text, in what a model is shown.
    NoText,
}

use Differs::{Headers, NoText, Statuses};

/// The key of `same`.
const KEY: &str = "x-api-key: enigma-test-key-of-same";

/// The requests that the contract asks for.
const AT_LEAST: usize = 200;

/// Two hosts that are asked at the same time do not answer at the same time.
const APART: u64 = 3;

/// Every place at which the two answers are not the same.
fn differ(place: &str, native: &Value, worker: &Value, found: &mut Vec<(String, String)>) {
    match (native, worker) {
        (Value::Object(left), Value::Object(right)) => {
            for name in left.keys().chain(right.keys()).collect::<BTreeSet<_>>() {
                let (left, right) = (&native[name], &worker[name]);
                differ(&format!("{place}/{name}"), left, right, found);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (n, (left, right)) in left.iter().zip(right).enumerate() {
                differ(&format!("{place}/{n}"), left, right, found);
            }
        }
        _ if native == worker || near(place, native, worker) => {}
        _ => found.push((place.to_owned(), format!("native {native}, Worker {worker}"))),
    }
}

/// Times that are as near to each other as the two answers.
fn near(place: &str, native: &Value, worker: &Value) -> bool {
    let number = |value: &Value| value.as_str().and_then(|text| text.parse::<u64>().ok());
    let (Some(left), Some(right)) = (number(native), number(worker)) else { return false };
    let most = match place {
        "/headers/x-ratelimit-reset/0" => APART * 1000,
        "/headers/ratelimit t/0" | "/headers/retry-after/0" => APART,
        _ => return false,
    };
    left.abs_diff(right) <= most
}

/// The rows under `## What differs`.
fn documented() -> Vec<String> {
    let page = include_str!("../../../docs/architecture/hosts.md");
    let section = page.split("\n## What differs\n").nth(1).expect("the page says what differs");
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| "));
    rows.filter_map(|row| Some(row.split_once(" |")?.0.to_owned())).collect()
}

/// What was seen of both.
#[derive(Default)]
struct Compared {
    requests: usize,
    wrong: String,
    /// Rows of headers that did differ.
    met: BTreeSet<&'static str>,
    codes: BTreeSet<String>,
}

impl Compared {
    fn take(&mut self, what: &str, native: &Value, worker: &Value) {
        self.codes.extend(native["body"]["json"]["error"]["code"].as_str().map(str::to_owned));
        let mut found = Vec::new();
        differ("", native, worker, &mut found);
        found.retain(|(place, _)| {
            let header = place.strip_prefix("/headers/").and_then(|rest| rest.split('/').next());
            let listed = |(row, how): &(&'static str, Differs)| match how {
                Headers(names) => header.is_some_and(|header| names.contains(&header)).then_some(*row),
                Statuses(..) | NoText => None,
            };
            let row = DIFFERENCES.iter().find_map(listed);
            self.met.extend(row);
            row.is_none()
        });
        if !found.is_empty() {
            writeln!(self.wrong, "{what}").unwrap();
            for (place, how) in found {
                writeln!(self.wrong, "    {place}: {how}").unwrap();
            }
        }
    }
}

/// Takes a step with both, and says what it was and what both answered.
async fn take(step: &Step, native: &mut Side, worker: &mut Side) -> Option<(String, Value, Value)> {
    let (what, (left, right)) = match step {
        Step::Ask(ask) => (told(ask), tokio::join!(native.ask(ask), worker.ask(ask))),
        Step::Raw(request) => (format!("{request:?}"), tokio::join!(native.raw(request), worker.raw(request))),
        Step::Hold(name, ask) => (told(ask), tokio::join!(native.hold(name, ask), worker.hold(name, ask))),
        Step::Release(name) => {
            (format!("what comes after {name}"), tokio::join!(native.release(name), worker.release(name)))
        }
        Step::Wait(pause) => {
            tokio::time::sleep(*pause).await;
            return None;
        }
    };
    Some((what, left, right))
}

#[tokio::test]
async fn both_hosts_answer_alike() {
    let tenants: Vec<Tenant> = cases::tenants().into_iter().chain(tenants()).collect();
    let upstreams = [Upstream::start(), Upstream::start()];
    let server = ServerConfig::new().upstream(&upstreams[0].base_url());
    let server: Server = tenants.iter().fold(server, ServerConfig::tenant).start();
    let worker = WorkerConfig::new().upstream(&upstreams[1].base_url());
    let worker: Worker = tenants.iter().fold(worker, WorkerConfig::tenant).start();
    let [first, second] = upstreams;
    let mut native = Side::new("native server", &server.base_url, first);
    let mut worker = Side::new("Worker", &worker.base_url, second);

    let (mut compared, script) = (Compared::default(), script());
    assert_every_route(&script);
    for (n, step) in script.iter().enumerate() {
        (native.step, worker.step) = (n, n);
        if let Some((what, left, right)) = take(step, &mut native, &mut worker).await {
            compared.requests += usize::from(!matches!(step, Step::Release(_)));
            compared.take(&what, &left, &right);
        }
    }
    let Compared { requests, wrong, met, codes } = compared;
    println!("{requests} requests were compared, with {} codes of errors", codes.len());
    assert!(wrong.is_empty(), "the hosts differ:\n{wrong}");
    assert!(requests >= AT_LEAST);
    assert_eq!(codes, CODES.map(str::to_owned).into(), "not every code of an error was seen");
    let no_text = same_calls(&native.upstream, &worker.upstream);

    // What is listed is documented, and does differ.
    let rows = documented();
    for (row, how) in DIFFERENCES {
        assert!(rows.iter().any(|known| known == row), "hosts.md has no row {row:?}: {rows:?}");
        match how {
            Headers(names) => assert!(met.contains(row), "{names:?} do not differ any more: {row}"),
            Statuses(line, headers, expected) => {
                let request = by_hand(line, headers);
                let (left, right) = tokio::join!(native.raw(&request), worker.raw(&request));
                assert_eq!([&left["status"], &right["status"]], *expected, "{row}: {request:?}\n{left}\n{right}");
            }
            NoText => assert!(no_text, "no message differs any more: {row}"),
        }
    }
}

/// Asserts that the script asks for every route, by the description that both hosts give.
fn assert_every_route(script: &[Step]) {
    let description: Value = serde_json::from_str(include_str!("../../../crates/http/openapi.json")).unwrap();
    let asked: Vec<(String, Vec<&str>)> = script
        .iter()
        .filter_map(|step| match step {
            Step::Ask(ask) | Step::Hold(_, ask) => Some(ask),
            Step::Raw(_) | Step::Release(_) | Step::Wait(_) => None,
        })
        .map(|ask| (ask.method.as_str().to_ascii_lowercase(), ask.path.split('?').next().unwrap().split('/').collect()))
        .collect();
    for (path, methods) in description["paths"].as_object().unwrap() {
        let route: Vec<_> = path.split('/').collect();
        let fits = |asked: &[&str]| {
            asked.len() == route.len()
                && route.iter().zip(asked).all(|(part, text)| part.starts_with('{') || part == text)
        };
        for method in methods.as_object().unwrap().keys().filter(|key| *key != "parameters") {
            assert!(asked.iter().any(|(known, path)| known == method && fits(path)), "nobody asks {method} {path}");
        }
    }
}

/// Every code of the contract but those of a fault of ours, which nothing a client sends brings about.
const CODES: [&str; 28] = [
    "tenant_required",
    "invalid_json",
    "invalid_request",
    "unauthorized",
    "tenant_mismatch",
    "scope_required",
    "model_not_allowed",
    "feature_disabled",
    "tenant_unknown",
    "not_found",
    "method_not_allowed",
    "idempotency_in_progress",
    "payload_too_large",
    "unsupported_media_type",
    "idempotency_mismatch",
    "rate_limited",
    "budget_exceeded",
    "too_many_streams",
    "ai_error",
    "ai_timeout",
    "tool_error",
    "VALIDATION_FAILED",
    "PERMISSION_DENIED",
    "TOOL_NOT_FOUND",
    "EXECUTION_ERROR",
    "EXECUTION_TIMEOUT",
    "tts_error",
    "tts_not_enabled",
];

/// A request by hand, with a chat if it is one.
fn by_hand(line: &str, headers: &[&str]) -> String {
    if !line.starts_with("POST") {
        return head(line, headers);
    }
    let body = json!({ "sessionId": session(130), "message": "hello", "stream": false }).to_string();
    let (kind, length) = ("content-type: application/json", format!("content-length: {}", body.len()));
    head(line, &[headers, &[kind, &length]].concat()) + &body
}

/// What of a request tells it from others in a report.
fn told(ask: &Ask) -> String {
    let mut text = format!("{} {} ", ask.method, ask.path);
    for (name, value) in &ask.headers {
        let value = String::from_utf8_lossy(value);
        write!(text, "{name}: {} ", value.chars().take(60).collect::<String>()).unwrap();
    }
    if let Some((_, body)) = &ask.body {
        text.extend(String::from_utf8_lossy(body).chars().take(160));
    }
    text
}

/// Messages in which the numbers that mark off data are always the same.
fn unmarked(messages: &Value) -> Value {
    let text = messages.to_string();
    let is_number = |word: &&str| word.len() == 32 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let numbers = text.split("=== ").filter_map(|rest| rest.split(' ').nth(1)).filter(is_number);
    let masked = numbers.fold(text.clone(), |masked, number| masked.replace(number, "N"));
    serde_json::from_str(&masked).unwrap()
}

/// Asserts that the models behind both were asked the same, in the same order. Tells whether one was shown an empty text where the
/// other was shown none.
fn same_calls(native: &Upstream, worker: &Upstream) -> bool {
    let (native, worker) = (native.calls(""), worker.calls(""));
    let mut no_text = false;
    for (n, (left, right)) in native.iter().zip(&worker).enumerate() {
        let (mut shown, other) = (unmarked(&left.body["messages"]), unmarked(&right.body["messages"]));
        for (message, other) in shown.as_array_mut().into_iter().flatten().zip(other.as_array().into_iter().flatten()) {
            if message["content"].is_null() && other["content"] == "" {
                message["content"] = "".into();
                no_text = true;
            }
        }
        assert_eq!((&left.model, &shown), (&right.model, &other), "call {n}");
        for name in
            ["input", "max_tokens", "temperature", "top_p", "seed", "stop", "tools", "tool_choice", "response_format"]
        {
            // JavaScript writes 0.0 as 0.
            let value = |body: &Value| body[name].as_f64().map_or_else(|| body[name].clone(), Value::from);
            assert_eq!(value(&left.body), value(&right.body), "{name} of call {n}");
        }
    }
    assert_eq!(native.len(), worker.len());
    no_text
}
