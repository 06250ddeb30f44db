//! What changes under a server that runs: tenants, certificates, and the process itself.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "all of this is test code: a panic is how it reports")]

use std::fs;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use enigma_conformance::client::{session, tag};
use enigma_conformance::server::Server;
use enigma_conformance::tenant::key_of;
use enigma_conformance::upstream::{PATIENCE, words};
use enigma_conformance::{Api, ServerConfig, Tenant, Upstream};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What the platform promises.
const A_SECOND: Duration = Duration::from_secs(1);

fn directory() -> Arc<TempDir> {
    Arc::new(tempfile::tempdir().unwrap())
}

fn file(directory: &TempDir, tenant: &str) -> std::path::PathBuf {
    directory.path().join("tenants").join(tenant).join("tenant.config.json")
}

/// Writes a tenant's file as careful people do: whole, or not at all.
fn exchange(directory: &TempDir, tenant: &Tenant) {
    let path = file(directory, &tenant.id);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let new = path.with_extension("new");
    fs::write(&new, tenant.json.to_string()).unwrap();
    fs::rename(new, path).unwrap();
}

/// How long it takes until a request with the tenant's key is answered with `status`.
async fn until_answered(api: &Api, status: u16) -> Duration {
    let began = Instant::now();
    while api.get("/sessions?userId=u").await.status != status {
        assert!(began.elapsed() < PATIENCE, "still not {status}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    began.elapsed()
}

/// Waits for a line of the log.
#[track_caller]
fn logged(server: &Server, parts: &[&str]) {
    let found = server
        .stderr
        .wait_for(PATIENCE, |text| text.lines().any(|line| parts.iter().all(|part| line.contains(part))).then_some(()));
    assert!(found.is_some(), "the log has no line with {parts:?}");
}

#[tokio::test]
async fn a_revoked_key_stops_within_a_second_and_the_answer_under_way_goes_on() {
    let (upstream, directory, tag) = (Upstream::start(), directory(), tag());
    let tenant = Tenant::new("acme");
    let server = ServerConfig::new()
        .upstream(&upstream.base_url())
        .tenant(&tenant)
        .tenant(&Tenant::new("other"))
        .stored_in(&directory)
        .start();
    let (api, other) = (server.tenant("acme"), server.tenant("other"));
    let mut reply = api.chat_stream(&session(), &format!("[[tokens 1]][[gate {tag}]][[tokens 2]]")).await;
    assert_eq!(reply.text().await, words(1));

    exchange(&directory, &tenant.clone().with("apiKeys", json!([])));
    let revoked = until_answered(&api, 401).await;
    assert!(revoked <= A_SECOND, "{revoked:?}");
    other.get("/sessions?userId=u").await.ok();

    upstream.open(&tag);
    let finished = reply.finish().await;
    assert_eq!((finished.text, finished.error), (words(2), None));

    // And back, in place this time.
    fs::write(file(&directory, "acme"), tenant.json.to_string()).unwrap();
    let granted = until_answered(&api, 200).await;
    assert!(granted <= A_SECOND, "{granted:?}");
}

#[tokio::test]
async fn bad_files_change_nothing_and_are_said_and_good_ones_drop_no_request() {
    let (upstream, directory) = (Upstream::start(), directory());
    let tenant = Tenant::new("acme");
    let server = ServerConfig::new().upstream(&upstream.base_url()).tenant(&tenant).stored_in(&directory).start();
    let stop = Arc::new(AtomicBool::new(false));
    let load = load(&server.base_url, None, &stop);

    fs::write(file(&directory, "acme"), "{ \"tenantId\": ").unwrap();
    logged(&server, &["tenant.config.json", "EOF", "ERROR"]);
    logged(&server, &["the tenants stay as they were"]);
    tokio::time::sleep(A_SECOND).await;
    assert_eq!(server.stderr.text().matches("the tenants stay as they were").count(), 1, "once for a change");
    let stranger = Tenant::new("stranger").with("colour", json!("red"));
    exchange(&directory, &stranger);
    logged(&server, &["colour", "unknown field"]);
    server.tenant("stranger").get("/sessions?userId=u").await.error(401, "unauthorized");

    exchange(&directory, &tenant);
    exchange(&directory, &Tenant::new("stranger"));
    assert!(until_answered(&server.tenant("stranger"), 200).await <= A_SECOND);
    // At once, and by a signal too.
    fs::remove_dir_all(directory.path().join("tenants/stranger")).unwrap();
    server.hang_up();
    until_answered(&server.tenant("stranger"), 401).await;

    stop.store(true, Ordering::SeqCst);
    let answered = load.await;
    assert!(answered > 10, "{answered}");
}

/// Asks again and again, on new connections and on old ones, until it is told to stop. Every request has to be answered.
async fn ask(base_url: String, trusted: Option<String>, stop: Arc<AtomicBool>) -> usize {
    let connect = || match &trusted {
        Some(certificate) => Api::trusting(&base_url, certificate),
        None => Api::new(&base_url),
    };
    let key = key_of("acme");
    let mut answered = 0;
    let mut api = connect().with("x-api-key", &key);
    while !stop.load(Ordering::SeqCst) {
        if answered % 4 == 0 {
            api = connect().with("x-api-key", &key);
        }
        api.get("/sessions?userId=u").await.ok();
        answered += 1;
    }
    answered
}

fn load(base_url: &str, trusted: Option<&str>, stop: &Arc<AtomicBool>) -> impl Future<Output = usize> + use<> {
    let asking: JoinSet<usize> =
        (0..4).map(|_| ask(base_url.to_owned(), trusted.map(str::to_owned), Arc::clone(stop))).collect();
    async move { asking.join_all().await.into_iter().sum() }
}

struct Pair {
    certificate: String,
    key: String,
}

/// A certificate of this machine that nobody has signed.
fn pair() -> Pair {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    Pair { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
}

impl Pair {
    fn write(&self, directory: &TempDir) {
        fs::write(directory.path().join("cert.pem"), &self.certificate).unwrap();
        fs::write(directory.path().join("key.pem"), &self.key).unwrap();
    }
}

/// Whether a new connection is shown this certificate.
async fn is_shown(base_url: &str, pair: &Pair) -> bool {
    Api::trusting(base_url, &pair.certificate).begin(http::Method::GET, "/healthz", None).await.is_ok()
}

#[tokio::test]
async fn a_certificate_is_exchanged_under_load_and_a_bad_one_is_not_taken() {
    let (upstream, directory, tag) = (Upstream::start(), directory(), tag());
    let (first, second) = (pair(), pair());
    first.write(&directory);
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let server = ServerConfig::new()
        .upstream(&upstream.base_url())
        .tenant(&Tenant::new("acme"))
        .set("tls.certificate_file", at("cert.pem"))
        .set("tls.key_file", at("key.pem"))
        .stored_in(&directory)
        .start();
    assert!(server.base_url.starts_with("https://"), "{}", server.base_url);
    let stop = Arc::new(AtomicBool::new(false));
    let both = format!("{}{}", first.certificate, second.certificate);
    let load = load(&server.base_url, Some(&both), &stop);
    let api = Api::trusting(&server.base_url, &first.certificate).with("x-api-key", &key_of("acme"));
    let mut reply = api.chat_stream(&session(), &format!("[[tokens 1]][[gate {tag}]][[tokens 2]]")).await;
    assert_eq!(reply.text().await, words(1));
    assert!(is_shown(&server.base_url, &first).await && !is_shown(&server.base_url, &second).await);

    // Of another key.
    fs::write(directory.path().join("cert.pem"), &second.certificate).unwrap();
    logged(&server, &["the certificate stays as it was", "cert.pem"]);
    assert!(is_shown(&server.base_url, &first).await);

    second.write(&directory);
    let began = Instant::now();
    while !is_shown(&server.base_url, &second).await {
        assert!(began.elapsed() < PATIENCE, "the new certificate is not shown");
    }
    assert!(!is_shown(&server.base_url, &first).await);
    upstream.open(&tag);
    assert_eq!(reply.finish().await.text, words(2));
    stop.store(true, Ordering::SeqCst);
    let answered = load.await;
    assert!(answered > 10, "{answered}");
}

#[test]
fn tls_without_a_certificate_is_no_server() {
    let upstream = Upstream::start();
    let config = ServerConfig::new()
        .upstream(&upstream.base_url())
        .tenant(&Tenant::new("acme"))
        .set("tls.certificate_file", "/no/such/cert.pem")
        .set("tls.key_file", "/no/such/key.pem");
    let (status, said) = config.refused();
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("/no/such/cert.pem") && said.contains("No such file"), "{said}");
}

/// Starts a server on a socket that this process holds, in the way of systemd.
fn start_on(socket: &TcpListener, config: ServerConfig, manager: &Path) -> Server {
    let (server, directory) = config.command();
    let mut command = Command::new("sh");
    command
        // Its own number is that of the server, as the shell becomes it. The socket comes as standard input, and goes to where
        // systemd puts it.
        .args(["-c", "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"", "sh"])
        .arg(server.get_program())
        .args(server.get_args())
        .envs(server.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env("NOTIFY_SOCKET", manager)
        .current_dir(server.get_current_dir().unwrap());
    let socket = socket.as_fd().try_clone_to_owned().unwrap();
    Server::start_on(command, Stdio::from(socket), directory, PATIENCE * 4)
}

/// A client that connects anew for each request, as one behind a balancer does.
async fn connect_anew(base_url: String, stop: Arc<AtomicBool>, answered: Arc<AtomicUsize>) {
    while !stop.load(Ordering::SeqCst) {
        let api = Api::patient(&base_url, PATIENCE * 4).with("x-api-key", &key_of("acme"));
        api.get("/sessions?userId=u").await.ok();
        answered.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_restart_on_a_socket_that_was_handed_over_loses_no_connection() {
    let (upstream, directory, tag) = (Upstream::start(), directory(), tag());
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let base_url = format!("http://{}", socket.local_addr().unwrap());
    let told = directory.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&told).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let next = || {
        let mut buffer = [0; 200];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let config = || {
        ServerConfig::new()
            .upstream(&upstream.base_url())
            .tenant(&Tenant::new("acme"))
            // Taken by nobody: the socket that is handed over counts.
            .set("server.listen", "192.0.2.1:1")
            .stored_in(&directory)
    };
    let mut server = start_on(&socket, config(), &told);
    assert_eq!((server.base_url.as_str(), next().as_str()), (base_url.as_str(), "READY=1"));
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: JoinSet<()> =
        (0..8).map(|_| connect_anew(base_url.clone(), Arc::clone(&stop), Arc::clone(&answered))).collect();
    let mut reply =
        server.tenant("acme").chat_stream(&session(), &format!("[[tokens 1]][[gate {tag}]][[tokens 2]]")).await;
    assert_eq!(reply.text().await, words(1));

    for restart in 0..3 {
        let before = answered.load(Ordering::SeqCst);
        while answered.load(Ordering::SeqCst) < before + 20 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if restart == 0 {
            server.hang_up();
            assert!(next().starts_with("RELOADING=1\nMONOTONIC_USEC="));
            assert_eq!(next(), "READY=1");
        }
        server.terminate();
        assert_eq!(next(), "STOPPING=1");
        upstream.open(&tag);
        let ended = tokio::task::spawn_blocking(move || {
            let status = server.ended(PATIENCE * 2);
            (server, status)
        });
        let (old, status) = ended.await.unwrap();
        assert!(status.success(), "{status}");
        drop(old);
        let (again, path) = (socket.try_clone().unwrap(), told.clone());
        let config = config();
        server = tokio::task::spawn_blocking(move || start_on(&again, config, &path)).await.unwrap();
        assert_eq!(next(), "READY=1");
    }
    assert_eq!(reply.finish().await.text, words(2));
    let before = answered.load(Ordering::SeqCst);
    while answered.load(Ordering::SeqCst) < before + 20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.store(true, Ordering::SeqCst);
    // A client whose connection was lost has panicked, and so does this.
    clients.join_all().await;
}
