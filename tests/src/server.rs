//! The native server, started as operators start it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::child::{Output, Watchdog, wait};
use crate::client::Api;
use crate::host::settings;
use crate::tenant::{Tenant, key_of};

/// The longest that a start or a stop takes, on a machine that is busy with other tests.
const START: Duration = Duration::from_secs(60);

/// The server's binary, built if need be. Once in a process.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        // target/PROFILE/deps/TEST
        let test = std::env::current_exe().unwrap();
        let directory = test.parent().and_then(Path::parent).expect("a test lies in its target directory");
        let profile = directory.file_name().and_then(|name| name.to_str()).unwrap();
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        // What cargo tells this test of its package: build scripts that watch it, as that of ring does, would run once again each
        // time, and everything above them be compiled anew.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
                command.env_remove(name);
            }
        }
        let built = command
            .args(["build", "--quiet", "--package", "enigma-server", "--profile"])
            .arg(if profile == "debug" { "dev" } else { profile })
            .arg("--target-dir")
            .arg(directory.parent().unwrap())
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .output()
            .expect("cargo runs");
        assert!(built.status.success(), "the server does not build:\n{}", String::from_utf8_lossy(&built.stderr));
        directory.join(format!("enigma-server{}", std::env::consts::EXE_SUFFIX))
    })
}

/// What a server is started with.
pub struct ServerConfig {
    values: BTreeMap<String, BTreeMap<String, Value>>,
    providers: Vec<String>,
    tenants: Vec<(String, String)>,
    variables: Vec<(String, String)>,
    directory: Option<Arc<TempDir>>,
}

impl ServerConfig {
    /// The configuration that cases count on, on a free port of this machine, with everything kept in memory.
    pub fn new() -> Self {
        let config = Self {
            values: BTreeMap::new(),
            providers: Vec::new(),
            tenants: Vec::new(),
            variables: Vec::new(),
            directory: None,
        };
        config
            .set("environment", settings::ENVIRONMENT)
            .set("server.listen", "127.0.0.1:0")
            .set("server.shutdown_grace_seconds", 5)
            .set("server.max_request_body_size", settings::MAX_REQUEST_BODY_SIZE)
            .set("server.max_message_length", settings::MAX_MESSAGE_LENGTH)
            .set("server.keep_alive_seconds", settings::KEEP_ALIVE.as_secs())
            .set("storage.database", "memory")
            .set("chat.max_message_count", settings::MAX_MESSAGE_COUNT)
            .set("chat.default_max_tokens", settings::DEFAULT_MAX_TOKENS)
            .set("chat.max_tokens", settings::MAX_TOKENS)
            .set("chat.send_timeout_seconds", settings::SEND_TIMEOUT.as_secs())
            .set("tools.timeout_seconds", settings::TOOL_TIMEOUT.as_secs())
            .set("models.first_token_timeout_seconds", settings::FIRST_TOKEN_TIMEOUT.as_secs())
            .set("models.idle_timeout_seconds", settings::IDLE_TIMEOUT.as_secs())
            .set("models.max_attempts", settings::MAX_ATTEMPTS)
            .set("models.retry_base_delay_ms", 20)
            .set("models.retry_max_delay_ms", 100)
            .set("models.breaker_failures", settings::BREAKER_FAILURES)
            .set("models.breaker_open_seconds", settings::BREAKER_OPEN.as_secs())
            // Whatever is installed on this machine.
            .set("espeak.model_id", "none")
            .set("log.level", "info")
            .set("log.format", "json")
    }

    /// Sets a field, such as `server.listen`.
    #[must_use]
    pub fn set(mut self, field: &str, value: impl Into<Value>) -> Self {
        let (section, name) = field.rsplit_once('.').unwrap_or(("", field));
        self.values.entry(section.to_owned()).or_default().insert(name.to_owned(), value.into());
        self
    }

    /// Adds a tenant.
    #[must_use]
    pub fn tenant(self, tenant: &Tenant) -> Self {
        let text = serde_json::to_string_pretty(&tenant.json).unwrap();
        self.tenant_file(&tenant.id, &text)
    }

    /// Adds a tenant's file, whatever is in it.
    #[must_use]
    pub fn tenant_file(mut self, name: &str, text: &str) -> Self {
        self.tenants.push((name.to_owned(), text.to_owned()));
        self
    }

    /// Serves all models by the endpoint at `base_url`.
    #[must_use]
    pub fn upstream(self, base_url: &str) -> Self {
        let models: Vec<String> = settings::MODELS.iter().map(|model| format!("{} = {0}", json!(model))).collect();
        self.provider(&format!(
            "id = \"scripted\"\nbase_url = {}\ndefault = true\nmodels = {{ {} }}\nvoices = {}\n",
            json!(base_url),
            models.join(", "),
            json!(settings::VOICES),
        ))
    }

    /// Adds a provider, the inside of `[[providers]]`.
    #[must_use]
    pub fn provider(mut self, text: &str) -> Self {
        self.providers.push(text.to_owned());
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Keeps everything in a SQLite file of `directory`, which outlives the server.
    #[must_use]
    pub fn stored_in(mut self, directory: &Arc<TempDir>) -> Self {
        let path = directory.path().join("enigma.db");
        self.directory = Some(Arc::clone(directory));
        self.set("storage.database", path.to_str().unwrap())
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (section, values) in &self.values {
            if !section.is_empty() {
                writeln!(text, "[{section}]").unwrap();
            }
            for (name, value) in values {
                // Texts, numbers, switches and lists of them are written alike in JSON and TOML.
                writeln!(text, "{name} = {value}").unwrap();
            }
        }
        for provider in &self.providers {
            writeln!(text, "[[providers]]\n{provider}").unwrap();
        }
        text
    }

    /// Writes the files, and returns the command that starts the server with them.
    pub fn command(mut self) -> (Command, Arc<TempDir>) {
        let directory = self.directory.clone().unwrap_or_else(|| Arc::new(tempfile::tempdir().unwrap()));
        let tenants = directory.path().join("tenants");
        for (name, text) in &self.tenants {
            let place = tenants.join(name);
            std::fs::create_dir_all(&place).unwrap();
            std::fs::write(place.join("tenant.config.json"), text).unwrap();
        }
        self = self.set("tenants.directory", tenants.to_str().unwrap());
        let file = directory.path().join("enigma.toml");
        std::fs::write(&file, self.text()).unwrap();
        let mut command = Command::new(binary());
        command.arg("--config").arg(&file).envs(self.variables).current_dir(directory.path());
        (command, directory)
    }

    /// Starts a server, and waits until it listens.
    pub fn start(self) -> Server {
        self.start_within(START)
    }

    /// Starts a server that may take up to `most` until it listens.
    pub fn start_within(self, most: Duration) -> Server {
        let (command, directory) = self.command();
        Server::start_within(command, directory, most)
    }

    /// Starts a server that must refuse to, and returns how it ended and what it said.
    pub fn refused(self) -> (ExitStatus, String) {
        let (mut command, _directory) = self.command();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let watchdog = Watchdog::over(child.id());
        let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let listens = std::thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).unwrap();
            text
        });
        let status = wait(&mut child, START).unwrap_or_else(|| {
            child.kill().unwrap();
            panic!("the server did not refuse to start")
        });
        drop(watchdog);
        let mut said = String::new();
        stderr.read_to_string(&mut said).unwrap();
        let output = listens.join().unwrap();
        assert!(!output.contains("listening on"), "it listened: {output}");
        (status, said)
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// A server that runs. It is killed when this is dropped, or when this process ends.
pub struct Server {
    /// Where it listens.
    pub base_url: String,
    /// What it printed.
    pub stdout: Output,
    /// What it logged.
    pub stderr: Output,
    child: Child,
    watchdog: Option<Watchdog>,
    _directory: Arc<TempDir>,
}

impl Server {
    /// Starts `command`, which must print `listening on http://…` before `most` has passed. What it needs of `directory` stays
    /// there as long as it runs.
    pub fn start_within(command: Command, directory: Arc<TempDir>, most: Duration) -> Self {
        Self::start_on(command, Stdio::null(), directory, most)
    }

    /// The same, with something as its standard input.
    pub fn start_on(mut command: Command, input: Stdio, directory: Arc<TempDir>, most: Duration) -> Self {
        let mut child = command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let watchdog = Some(Watchdog::over(child.id()));
        let stdout = Output::collect(child.stdout.take().unwrap());
        let stderr = Output::collect(child.stderr.take().unwrap());
        let mut server = Self { base_url: String::new(), stdout, stderr, child, watchdog, _directory: directory };
        let found = server.stdout.wait_for(most, |text| {
            let rest = text.split_once("listening on ")?.1;
            // Only a whole line is a whole address.
            Some(rest.split_once('\n')?.0.split_whitespace().next()?.to_owned())
        });
        server.base_url = found.unwrap_or_else(|| panic!("the server does not listen"));
        server
    }

    /// A client that shows a tenant's key.
    pub fn tenant(&self, id: &str) -> Api {
        Api::new(&self.base_url).with("x-api-key", &key_of(id))
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Asks it to read its files again.
    pub fn hang_up(&self) {
        self.signal("HUP");
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status().unwrap();
        assert!(sent.success(), "the server is gone already");
    }

    /// The most memory that it has had so far, in bytes.
    ///
    /// # Panics
    /// Where there is no `/proc`.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells the peak");
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        kibibytes * 1024
    }

    /// Ends it without a chance to do anything more.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it has ended.
    pub fn ended(&mut self, most: Duration) -> ExitStatus {
        wait(&mut self.child, most).unwrap_or_else(|| panic!("the server did not stop within {most:?}"))
    }

    /// Its log, and what it printed.
    pub fn output(&self) -> String {
        format!("{}{}", self.stdout.text(), self.stderr.text())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        drop(self.watchdog.take());
        if std::thread::panicking() {
            // Let the readers take in what is left.
            self.stderr.wait_for(Duration::from_secs(1), |_| None::<()>);
            let output = self.output();
            let lines: Vec<_> = output.lines().collect();
            let last = lines[lines.len().saturating_sub(60)..].join("\n");
            #[expect(clippy::print_stderr, reason = "this is where a failed test says why")]
            {
                eprintln!("--- the server's last lines:\n{last}\n---");
            }
        }
    }
}
