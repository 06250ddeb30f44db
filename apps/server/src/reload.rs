//! What is read again while the server runs: the tenants' files and the certificate, at every SIGHUP and whenever they change,
//! so that a key is revoked and a certificate renewed without ending anybody's answer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use enigma_memory::MemoryTenantDirectory;

use crate::config::Config;
use crate::service_manager::{self, State};
use crate::tenants;
use crate::tls::Certificates;
use crate::watch::{Look, Watch};
use crate::with_causes;

/// How often the files are looked at. A change is taken at the next look but one, or in the worst case two later: within a second.
const EVERY: Duration = Duration::from_millis(200);

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

/// What is due to be read.
#[derive(Debug, Clone, Copy)]
struct Due {
    tenants: bool,
    certificates: bool,
}

impl Files {
    fn read(&self, due: Due) {
        if due.tenants {
            tenants::reload(&self.config, &self.directory);
        }
        if let Some(certificates) = self.certificates.as_ref().filter(|_| due.certificates) {
            match certificates.reload() {
                Ok(()) => tracing::info!("certificate read again"),
                Err(error) => {
                    tracing::error!(error = with_causes(&error), "the certificate stays as it was");
                }
            }
        }
    }

    /// Reads what changes, and everything when it is asked to, without end. `before` is how the files looked when they were read
    /// for the start.
    pub(crate) async fn keep_up(&self, before: Looks, hangup: &mut Hangup) {
        let (mut tenants, mut certificates) = (Watch::new(before.tenants), Watch::new(before.certificates));
        loop {
            let asked = tokio::select! {
                () = hangup.next() => true,
                () = tokio::time::sleep(EVERY) => false,
            };
            let Some(now) = self.blocking(|files| Looks::now(&files.config)).await else { continue };
            if asked {
                service_manager::tell(State::Reloading);
                tenants.taken_at(now.tenants);
                certificates.taken_at(now.certificates);
            }
            let due = Due {
                tenants: asked || tenants.is_due(now.tenants),
                certificates: asked || certificates.is_due(now.certificates),
            };
            if due.tenants || due.certificates {
                self.blocking(move |files| files.read(due)).await;
            }
            if asked {
                service_manager::tell(State::Ready);
            }
        }
    }

    /// Files are not read where answers are made. `None` when the work panicked, which was said where it did.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> T + Send + 'static) -> Option<T> {
        let files = self.clone();
        tokio::task::spawn_blocking(move || work(&files)).await.ok()
    }
}
