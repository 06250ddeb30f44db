//! What is read again while the server runs: the tenants' files and the certificate, at every SIGHUP and whenever they change,
//! so that a key is revoked and a certificate renewed without ending anybody's answer.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use enigma_memory::MemoryTenantDirectory;

use crate::config::Config;
use crate::service_manager::{self, State};
use crate::tenants;
use crate::tls::{Certificates, TlsError};
use crate::watch::{Look, Watch};
use crate::with_causes;

/// How often the files are looked at. A change is taken at the next look but one, or in the worst case two later: within a second.
const EVERY: Duration = Duration::from_millis(200);

/// After how many looks files that could not be taken are tried again: 5 s.
const LOOKS_UNTIL_AGAIN: u32 = 25;

/// The signal that asks for everything to be read again.
pub(crate) struct Hangup {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

impl Hangup {
    /// Listens for it from now on.
    ///
    /// # Errors
    /// When the system refuses.
    #[cfg(unix)]
    pub(crate) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { signal: signal(SignalKind::hangup())? })
    }

    /// Waits for the next one.
    #[cfg(unix)]
    async fn next(&mut self) {
        if self.signal.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// There is no such signal.
    ///
    /// # Errors
    /// Never.
    #[cfg(not(unix))]
    #[expect(clippy::unnecessary_wraps, reason = "on Unix the system can refuse")]
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Waits for ever.
    #[cfg(not(unix))]
    async fn next(&mut self) {
        std::future::pending::<()>().await;
    }
}

/// Everything that can be read again.
#[derive(Clone)]
pub(crate) struct Files {
    pub(crate) config: Arc<Config>,
    pub(crate) directory: Arc<MemoryTenantDirectory>,
    pub(crate) certificates: Option<Arc<Certificates>>,
}

/// How the files looked. Taken before they are read, so that what changes meanwhile is seen later.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Looks {
    tenants: Look,
    certificates: Look,
}

impl Looks {
    /// Of the files that `config` names.
    pub(crate) fn now(config: &Config) -> Self {
        let certificates = config.tls.iter().flat_map(|files| [files.certificate.clone(), files.key.clone()]);
        Self { tenants: Look::at_tenants(&config.tenants_directory), certificates: Look::at(certificates) }
    }
}

/// What came of reading something again.
type Outcome<E> = Result<(), E>;

impl Files {
    /// Reads what changes, and everything when it is asked to, without end. `before` is how the files looked when they were read
    /// for the start.
    pub(crate) async fn keep_up(&self, before: Looks, hangup: &mut Hangup) {
        let (mut tenants, mut certificates) = (Watched::new(before.tenants), Watched::new(before.certificates));
        loop {
            let asked = tokio::select! {
                () = hangup.next() => true,
                () = tokio::time::sleep(EVERY) => false,
            };
            if asked {
                service_manager::tell(State::Reloading);
            }
            if let Some(now) = self.blocking(|files| Looks::now(&files.config)).await {
                if let Some(due) = tenants.due(now.tenants, asked) {
                    let read = self.blocking(|files| tenants::reload(&files.config, &files.directory)).await;
                    tenants.read(due, read, tenants::refused);
                }
                if let Some(due) = certificates.due(now.certificates, asked) {
                    let read = self.blocking(Self::read_certificates).await;
                    certificates.read(due, read, |error| {
                        tracing::error!(error = with_causes(error), "the certificate stays as it was");
                    });
                }
            }
            if asked {
                service_manager::tell(State::Ready);
            }
        }
    }

    fn read_certificates(&self) -> Outcome<TlsError> {
        if let Some(certificates) = &self.certificates {
            certificates.reload()?;
            tracing::info!("certificate read again");
        }
        Ok(())
    }

    /// Files are not read where answers are made. `None` when the work panicked, which was said where it did.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> T + Send + 'static) -> Option<T> {
        let files = self.clone();
        tokio::task::spawn_blocking(move || work(&files)).await.ok()
    }
}

/// Why something is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// It has changed, or somebody has asked for it.
    Changed,
    /// It could not be taken the last time, and that may have been nothing in the files: perhaps no more could be opened.
    Again,
}

/// Files that are watched, and what came of reading them the last time.
struct Watched {
    watch: Watch,
    /// What was wrong.
    trouble: Option<String>,
    /// Looks since then.
    looks: u32,
}

impl Watched {
    fn new(taken: Look) -> Self {
        Self { watch: Watch::new(taken), trouble: None, looks: 0 }
    }

    /// Whether they are to be read, now that they look like this.
    fn due(&mut self, now: Look, asked: bool) -> Option<Due> {
        if asked {
            self.watch.taken_at(now);
            return Some(Due::Changed);
        }
        if self.watch.is_due(now) {
            return Some(Due::Changed);
        }
        self.looks += 1;
        (self.trouble.is_some() && self.looks.is_multiple_of(LOOKS_UNTIL_AGAIN)).then_some(Due::Again)
    }

    /// Keeps what came of it, and has it said, unless it was said already.
    fn read<E: Error>(&mut self, due: Due, read: Option<Outcome<E>>, say: impl FnOnce(&E)) {
        self.looks = 0;
        // A panic was said where it happened, and counts as trouble.
        let error = match read {
            Some(Ok(())) => {
                self.trouble = None;
                return;
            }
            Some(Err(error)) => Some(error),
            None => None,
        };
        let text = error.as_ref().map(|error| with_causes(error)).unwrap_or_default();
        if let Some(error) = error.filter(|_| due == Due::Changed || self.trouble.as_ref() != Some(&text)) {
            say(&error);
        }
        self.trouble = Some(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_taken_is_tried_again_and_said_once() {
        let look = || Look::at([]);
        let mut watched = Watched::new(look());
        let mut said = Vec::new();
        let mut round = |watched: &mut Watched, asked: bool, read: Result<(), &str>| {
            let due = watched.due(look(), asked);
            if let Some(due) = due {
                watched.read(due, Some(read.map_err(io::Error::other)), |error| said.push(error.to_string()));
            }
            due
        };
        for _ in 0..100 {
            assert_eq!(round(&mut watched, false, Ok(())), None);
        }
        assert_eq!(round(&mut watched, true, Err("wrong")), Some(Due::Changed));
        let again = (0..LOOKS_UNTIL_AGAIN * 3).filter_map(|_| round(&mut watched, false, Err("wrong")));
        assert_eq!(again.collect::<Vec<_>>(), [Due::Again; 3]);
        let again = (0..LOOKS_UNTIL_AGAIN).filter_map(|_| round(&mut watched, false, Err("worse")));
        assert_eq!(again.count(), 1);
        let again = (0..LOOKS_UNTIL_AGAIN * 3).filter_map(|_| round(&mut watched, false, Ok(())));
        assert_eq!(again.count(), 1, "then all is well");
        assert_eq!(said, ["wrong", "worse"]);
    }
}
