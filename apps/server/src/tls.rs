//! TLS, with a certificate that can be changed while connections are open.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

/// No chain of certificates and no key is as long as this; a longer file is something else.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The protocols that are spoken inside, the best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Where a certificate and its key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// Why a certificate cannot be used. Never says anything of the key but that.
#[derive(Debug, Error)]
pub(crate) enum TlsError {
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    #[error("{}: not PEM", .0.display())]
    Pem(PathBuf, #[source] pem::Error),
    #[error("{}: there is no certificate in it", .0.display())]
    Empty(PathBuf),
    #[error("{} and {} cannot be used together", .0.certificate.display(), .0.key.display())]
    Pair(TlsFiles, #[source] rustls::Error),
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

/// The certificate that new connections are shown.
#[derive(Debug)]
pub(crate) struct Certificates {
    files: TlsFiles,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub(crate) fn load(files: TlsFiles) -> Result<Arc<Self>, TlsError> {
        let current = RwLock::new(Arc::new(read(&files)?));
        Ok(Arc::new(Self { files, current }))
    }

    /// Reads the files again. Connections that are open keep what they have.
    ///
    /// # Errors
    /// [`TlsError`]; nothing has changed then.
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        let new = Arc::new(read(&self.files)?);
        // Nothing can panic while the lock is held, and a key is always whole.
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// What ends the TLS of connections.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub(crate) fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor, TlsError> {
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(TlsError::Setup)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
        // Whoever comes back need not be proven the certificate again, and nothing is kept here for them.
        config.ticketer = ring::Ticketer::new().map_err(TlsError::Setup)?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn read(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let pem = |path: &Path| {
        let path = path.to_owned();
        move |error| TlsError::Pem(path, error)
    };
    let chain = CertificateDer::pem_slice_iter(&contents(&files.certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(pem(&files.certificate))?;
    if chain.is_empty() {
        return Err(TlsError::Empty(files.certificate.clone()));
    }
    let key = PrivateKeyDer::from_pem_slice(&contents(&files.key)?).map_err(pem(&files.key))?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| TlsError::Pair(files.clone(), error))
}

fn contents(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |error| TlsError::Read(path.to_owned(), error);
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    fn write(files: &TlsFiles, name: &str) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        fs::write(&files.certificate, made.cert.pem()).unwrap();
        fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    }

    fn files(directory: &TempDir) -> TlsFiles {
        TlsFiles { certificate: directory.path().join("cert.pem"), key: directory.path().join("key.pem") }
    }

    fn shown(certificates: &Certificates) -> Vec<u8> {
        certificates.current.read().unwrap().cert[0].to_vec()
    }

    #[test]
    fn a_new_certificate_is_taken_and_a_bad_one_changes_nothing() {
        let directory = TempDir::new().unwrap();
        let files = files(&directory);
        write(&files, "one.test");
        let certificates = Certificates::load(files.clone()).unwrap();
        certificates.acceptor().unwrap();
        let first = shown(&certificates);

        write(&files, "two.test");
        certificates.reload().unwrap();
        let second = shown(&certificates);
        assert_ne!(first, second);

        let good = fs::read(&files.certificate).unwrap();
        let other = rcgen::generate_simple_self_signed(["three.test".to_owned()]).unwrap().cert.pem();
        for bad in ["", "-----BEGIN CERTIFICATE-----\nAAAA", &other] {
            fs::write(&files.certificate, bad).unwrap();
            let error = certificates.reload().unwrap_err();
            assert!(error.to_string().contains("cert.pem"), "{error}");
        }
        fs::write(&files.certificate, good).unwrap();
        fs::remove_file(&files.key).unwrap();
        assert!(matches!(certificates.reload(), Err(TlsError::Read(..))));
        assert_eq!(shown(&certificates), second);
    }
}
