//! The first of the README's two commands: a demo that prints a line to paste, which streams a real model's answer.

#![expect(clippy::unwrap_used, reason = "all of this is test code: a panic is how it reports")]

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use enigma_conformance::Server;
use enigma_conformance::server::binary;
use enigma_conformance::sse::{Event, Reader};

/// The first start may have to fetch the weights.
const WITH_WEIGHTS: Duration = Duration::from_secs(600);

/// The demo in a directory of its own, on a free port.
fn demo(directory: &Arc<tempfile::TempDir>) -> Server {
    let mut command = Command::new(binary());
    command
        .args(["--demo", "--server-listen", "127.0.0.1:0"])
        .current_dir(directory.path())
        .env_remove("ENIGMA_CONFIG");
    Server::start_within(command, Arc::clone(directory), WITH_WEIGHTS)
}

/// The line to paste, as it was printed.
fn line(server: &Server) -> String {
    let find = |text: &str| text.lines().find(|line| line.starts_with("curl ")).map(str::to_owned);
    server.stdout.wait_for(Duration::from_secs(10), find).expect("no line that begins with curl was printed")
}

/// Pastes the line into a shell.
fn paste(line: &str) -> Vec<Event> {
    let curl = Command::new("curl").arg("--version").output();
    assert!(curl.is_ok_and(|output| output.status.success()), "this test needs curl");
    let mut shell = Command::new("sh")
        // curl itself must not wait for ever, whatever the server does.
        .args(["-c", &line.replacen("curl ", "curl --silent --show-error --fail-with-body --max-time 120 ", 1)])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut reader, mut events) = (Reader::default(), Vec::new());
    let mut lines = BufReader::new(shell.stdout.take().unwrap());
    let mut read = Vec::new();
    while lines.read_until(b'\n', &mut read).unwrap() > 0 {
        reader.push(&read);
        read.clear();
        while let Some(event) = reader.pop() {
            events.push(event);
        }
    }
    let mut said = String::new();
    shell.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let status = shell.wait().unwrap();
    assert!(status.success(), "{status}: {said} {events:?}");
    assert!(reader.rest().is_empty(), "{:?}", String::from_utf8_lossy(reader.rest()));
    events
}

#[test]
fn the_printed_line_streams_a_real_answer() {
    let directory = Arc::new(tempfile::tempdir().unwrap());
    let server = demo(&directory);
    let printed = line(&server);
    assert!(printed.contains("curl -N") && printed.contains(&server.base_url), "{printed}");
    let events = paste(&printed);
    let (done, pieces) = events.split_last().expect("nothing came");
    assert_eq!(done.name.as_deref(), Some("done"), "{events:?}");
    let done = done.json();
    assert_eq!(done["done"], true);
    assert!(matches!(done["finishReason"].as_str(), Some("stop" | "length")), "{done}");
    assert!(done["usage"]["tokensOut"].as_u64().unwrap() > 0, "{done}");
    let pieces: Vec<_> = pieces.iter().filter(|event| event.comment.is_none()).collect();
    assert!(pieces.len() >= 5, "{events:?}");
    let text: String = pieces.iter().map(|event| event.text().expect("a piece of the answer")).collect();
    assert!(text.split_whitespace().count() >= 5, "{text:?}");
    // Not all at once: each piece came when it was made.
    let spread = pieces[pieces.len() - 1].at - pieces[0].at;
    assert!(spread > Duration::from_millis(20), "{} pieces within {spread:?}", pieces.len());
    let distinct = pieces.windows(2).filter(|pair| pair[1].at - pair[0].at > Duration::from_micros(200)).count();
    assert!(distinct >= 3, "the pieces came in {distinct} bursts");
    drop(server);

    // The same key opens the demo the next time, so that a line that was pasted once works again.
    let key = |line: &str| line.split("x-api-key: ").nth(1).unwrap().split('\'').next().unwrap().to_owned();
    let again = line(&demo(&directory));
    assert_eq!(key(&again), key(&printed));
}
