//! The Worker, started in workerd with the platform's bindings.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::child::{Output, Watchdog, wait};
use crate::client::Api;
use crate::host::settings;
use crate::tenant::{Tenant, key_of};

/// The longest that a start takes, on a machine that is busy with other tests.
const START: Duration = Duration::from_secs(60);

/// The longest that the host takes for what it is told.
const TOLD: Duration = Duration::from_secs(20);

/// How soon a Worker of the tests sees a change of its tenants.
pub const TENANTS_REFRESH: Duration = Duration::from_secs(1);

/// The gateway of every tenant that names none.
pub const DEFAULT_GATEWAY: &str = "default-gateway";

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The directory of a built Worker: of the one that is deployed, or of another package. Built once in a process.
pub fn build(package: &'static str) -> PathBuf {
    static BUILT: Mutex<BTreeMap<&str, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = built.entry(package).or_insert_with(|| {
        let output = Command::new(root().join("scripts/worker-build.sh"))
            .arg(package)
            .current_dir(root())
            .output()
            .expect("the script that builds the Worker runs");
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "the Worker does not build:\n{}\n{}",
            said(&output.stdout),
            said(&output.stderr)
        );
        root().join(package).join("build").canonicalize().unwrap()
    });
    directory.clone()
}

/// What a Worker is started with.
pub struct WorkerConfig {
    package: &'static str,
    variables: BTreeMap<String, String>,
    tenants: Map<String, Value>,
    breaks: BTreeMap<&'static str, &'static str>,
    upstream: Option<String>,
    vectorize: Value,
    directory: Option<Arc<TempDir>>,
}

impl WorkerConfig {
    /// The configuration that cases count on, on a free port of this machine, with everything kept in memory.
    pub fn new() -> Self {
        let config = Self {
            package: "apps/worker",
            variables: BTreeMap::new(),
            tenants: Map::new(),
            breaks: BTreeMap::new(),
            upstream: None,
            vectorize: json!({}),
            directory: None,
        };
        config
            .variable("ENVIRONMENT", settings::ENVIRONMENT)
            .variable("MAX_REQUEST_BODY_SIZE", settings::MAX_REQUEST_BODY_SIZE)
            .variable("MAX_MESSAGE_LENGTH", settings::MAX_MESSAGE_LENGTH)
            .variable("MAX_MESSAGE_COUNT", settings::MAX_MESSAGE_COUNT)
            .variable("ENIGMA_SERVER_KEEP_ALIVE_SECONDS", settings::KEEP_ALIVE.as_secs())
            .variable("ENIGMA_CHAT_DEFAULT_MAX_TOKENS", settings::DEFAULT_MAX_TOKENS)
            .variable("ENIGMA_CHAT_MAX_TOKENS", settings::MAX_TOKENS)
            .variable("ENIGMA_CHAT_SEND_TIMEOUT_SECONDS", settings::SEND_TIMEOUT.as_secs())
            .variable("ENIGMA_TOOLS_TIMEOUT_SECONDS", settings::TOOL_TIMEOUT.as_secs())
            .variable("ENIGMA_MODELS_FIRST_TOKEN_TIMEOUT_SECONDS", settings::FIRST_TOKEN_TIMEOUT.as_secs())
            .variable("ENIGMA_MODELS_IDLE_TIMEOUT_SECONDS", settings::IDLE_TIMEOUT.as_secs())
            .variable("ENIGMA_MODELS_MAX_ATTEMPTS", settings::MAX_ATTEMPTS)
            .variable("ENIGMA_MODELS_RETRY_BASE_DELAY_MS", 20)
            .variable("ENIGMA_MODELS_RETRY_MAX_DELAY_MS", 100)
            .variable("ENIGMA_MODELS_BREAKER_FAILURES", settings::BREAKER_FAILURES)
            .variable("ENIGMA_MODELS_BREAKER_OPEN_SECONDS", settings::BREAKER_OPEN.as_secs())
            .variable("ENIGMA_AI_MODELS", settings::MODELS.join(", "))
            .variable("ENIGMA_GATEWAY_ID", DEFAULT_GATEWAY)
            .variable("ENIGMA_TENANTS_REFRESH_SECONDS", TENANTS_REFRESH.as_secs())
    }

    /// Another package than the Worker that is deployed.
    #[must_use]
    pub fn package(mut self, package: &'static str) -> Self {
        self.package = package;
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<Value>) -> Self {
        // A text as it is, and everything else as JSON.
        let value = value.into();
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        self.variables.insert(name.to_owned(), value);
        self
    }

    /// Adds a tenant, in KV.
    #[must_use]
    pub fn tenant(mut self, tenant: &Tenant) -> Self {
        self.tenants.insert(tenant.id.clone(), tenant.json.clone());
        self
    }

    /// Serves all models by the endpoint at `base_url`, behind the stand-in of Workers AI.
    #[must_use]
    pub fn upstream(mut self, base_url: &str) -> Self {
        self.upstream = Some(base_url.to_owned());
        self
    }

    /// Serves all models by the endpoint at `base_url`, which the Worker fetches from without Workers AI.
    #[must_use]
    pub fn provider(self, base_url: &str) -> Self {
        let models: Map<String, Value> =
            settings::MODELS.iter().map(|model| ((*model).to_owned(), Value::from(*model))).collect();
        let voices = settings::VOICES;
        let provider =
            json!({ "id": "scripted", "base_url": base_url, "default": true, "models": models, "voices": voices });
        self.variable("ENIGMA_PROVIDERS", json!([provider]))
    }

    /// Makes every call of a binding fail: `throws` or `hangs`.
    #[must_use]
    pub fn breaks(mut self, binding: &'static str, how: &'static str) -> Self {
        self.breaks.insert(binding, how);
        self
    }

    /// Has a vector index of its own making: `dimensions`, `metadataIndexes`, `visibleAfterMs`.
    #[must_use]
    pub fn vectorize(mut self, options: Value) -> Self {
        self.vectorize = options;
        self
    }

    /// Keeps everything in `directory`, which outlives the Worker.
    #[must_use]
    pub fn stored_in(mut self, directory: &Arc<TempDir>) -> Self {
        self.directory = Some(Arc::clone(directory));
        self
    }

    /// The tenants, as KV holds them.
    fn document(&self) -> String {
        json!({ "tenants": self.tenants }).to_string()
    }

    /// Starts a Worker, and waits until it answers.
    pub fn start(self) -> Worker {
        let build = build(self.package);
        let config = json!({
            "build": build,
            "vars": self.variables,
            "kv": { "CONFIG": { "tenants": self.document() } },
            "persist": self.directory.as_ref().map(|directory| directory.path()),
            "migrations": root().join("crates/cloudflare/migrations"),
            "upstream": self.upstream,
            "requireGateway": true,
            "breaks": self.breaks,
            "vectorize": self.vectorize,
        });
        Worker::start(&config, self.tenants, self.directory)
    }
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// A Worker that runs. It is ended when this is dropped, or when this process ends.
pub struct Worker {
    /// Where it listens.
    pub base_url: String,
    /// What it logged.
    pub stderr: Output,
    stdout: Output,
    told: Mutex<(ChildStdin, usize)>,
    tenants: Mutex<Map<String, Value>>,
    child: Child,
    watchdog: Option<Watchdog>,
    _directory: Option<Arc<TempDir>>,
}

impl Worker {
    fn start(config: &Value, tenants: Map<String, Value>, directory: Option<Arc<TempDir>>) -> Self {
        static PACKAGES: OnceLock<()> = OnceLock::new();
        PACKAGES.get_or_init(|| {
            let ready = Command::new(root().join("scripts/worker-packages.sh")).current_dir(root()).status().unwrap();
            assert!(ready.success(), "the npm packages are not there");
        });
        let mut child = Command::new("node")
            .arg(root().join("apps/worker/local/host.mjs"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("node runs");
        let watchdog = Some(Watchdog::over(child.id()));
        let mut stdin = child.stdin.take().unwrap();
        let stdout = Output::collect(child.stdout.take().unwrap());
        let stderr = Output::collect(child.stderr.take().unwrap());
        writeln!(stdin, "{config}").unwrap();
        let mut worker = Self {
            base_url: String::new(),
            stderr,
            stdout,
            told: Mutex::new((stdin, 1)),
            tenants: Mutex::new(tenants),
            child,
            watchdog,
            _directory: directory,
        };
        let first = worker.stdout.wait_for(START, |text| text.lines().next().map(str::to_owned));
        let first: Value = first.and_then(|line| serde_json::from_str(&line).ok()).unwrap_or_default();
        let url = first["url"].as_str().unwrap_or_else(|| panic!("the Worker does not start: {first}"));
        url.clone_into(&mut worker.base_url);
        worker
    }

    /// Tells the host something, and returns what it says.
    pub fn tell(&self, what: &Value) -> Value {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (stdin, answered) = &mut *told;
        writeln!(stdin, "{what}").unwrap();
        let place = *answered;
        *answered += 1;
        let line = self.stdout.wait_for(TOLD, |text| {
            // Only a whole line is a whole answer.
            text.split_inclusive('\n').nth(place).filter(|line| line.ends_with('\n')).map(str::to_owned)
        });
        let answer: Value = serde_json::from_str(&line.expect("the host answers")).unwrap();
        assert!(answer["error"].is_null(), "{what}: {answer}");
        answer
    }

    /// Replaces a tenant, or removes it, in KV. The Worker sees it when it next looks.
    pub fn change_tenant(&self, id: &str, tenant: Option<&Tenant>) {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        tenants.insert(id.to_owned(), tenant.map_or(Value::Null, |tenant| tenant.json.clone()));
        self.put_tenants(&json!({ "tenants": *tenants }).to_string());
    }

    /// Writes the document of tenants, whatever is in it.
    pub fn put_tenants(&self, document: &str) {
        self.tell(&json!({ "op": "kv.put", "namespace": "CONFIG", "key": "tenants", "value": document }));
    }

    /// A client that shows a tenant's key.
    pub fn tenant(&self, id: &str) -> Api {
        Api::new(&self.base_url).with("x-api-key", &key_of(id))
    }

    /// Ends it without a chance to do anything more, workerd included.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Lets it end.
    pub fn stop(mut self) {
        drop(self.watchdog.take());
        let sent = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status().unwrap();
        assert!(sent.success(), "the host is gone already");
        wait(&mut self.child, TOLD).expect("the host ends");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        drop(self.watchdog.take());
        if std::thread::panicking() {
            self.stderr.wait_for(Duration::from_secs(1), |_| None::<()>);
            let output = self.stderr.text();
            let lines: Vec<_> = output.lines().collect();
            let last = lines[lines.len().saturating_sub(60)..].join("\n");
            #[expect(clippy::print_stderr, reason = "this is where a failed test says why")]
            {
                eprintln!("--- the Worker's last lines:\n{last}\n---");
            }
        }
    }
}
