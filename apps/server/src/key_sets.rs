//! The public keys of tenants' tokens: over HTTP, or from files.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use enigma_core::token::KeySetLocation;
use enigma_jwt::{FetchError, KeySetSource, MAX_KEY_SET_BYTES};
use enigma_openai::Transport;
use futures_util::StreamExt;
use http::{Request, StatusCode, header};

/// Reads key sets over `transport`, which follows no redirects, and files relative to `directory`.
pub(crate) struct KeySets {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) directory: PathBuf,
}

impl KeySets {
    async fn get(&self, url: &str) -> Result<Vec<u8>, FetchError> {
        let request = Request::get(url)
            .header(header::ACCEPT, "application/jwk-set+json, application/json")
            .body(bytes::Bytes::new())
            .map_err(FetchError::unreachable)?;
        let response = self.transport.send(request).await.map_err(FetchError::unreachable)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let (mut body, mut read) = (response.into_body(), Vec::new());
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(FetchError::unreachable)?;
            if read.len() + piece.len() > MAX_KEY_SET_BYTES {
                return Err(FetchError::TooLong);
            }
            read.extend_from_slice(&piece);
        }
        Ok(read)
    }
}

#[async_trait]
impl KeySetSource for KeySets {
    async fn fetch(&self, location: &KeySetLocation) -> Result<Vec<u8>, FetchError> {
        match location {
            KeySetLocation::Url(url) => self.get(url).await,
            KeySetLocation::File(file) => {
                let path = self.directory.join(file);
                let read = tokio::task::spawn_blocking(move || {
                    let mut bytes = Vec::new();
                    File::open(path)?.take(MAX_KEY_SET_BYTES as u64 + 1).read_to_end(&mut bytes)?;
                    Ok::<_, std::io::Error>(bytes)
                });
                let bytes = read.await.map_err(FetchError::unreachable)?.map_err(FetchError::unreachable)?;
                if bytes.len() > MAX_KEY_SET_BYTES { Err(FetchError::TooLong) } else { Ok(bytes) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use bytes::Bytes;
    use enigma_openai::{ByteStream, TransportError};
    use futures_util::stream;
    use http::Response;
    use tempfile::TempDir;

    use super::*;

    /// Answers by the path, in pieces of a thousand bytes.
    struct Scripted;

    #[async_trait]
    impl Transport for Scripted {
        async fn send(&self, request: Request<Bytes>) -> Result<Response<ByteStream>, TransportError> {
            assert_eq!((request.method(), request.uri().host()), (&http::Method::GET, Some("keys.example")));
            let (status, body) = match request.uri().path() {
                "/keys" => (200, br#"{ "keys": [] }"#.to_vec()),
                "/just" => (200, vec![b'x'; MAX_KEY_SET_BYTES]),
                "/long" => (200, vec![b'x'; MAX_KEY_SET_BYTES + 1]),
                "/moved" => (307, vec![]),
                "/broken" => (500, b"no keys".to_vec()),
                _ => return Err(TransportError::connect("nobody listens")),
            };
            let pieces: Vec<_> = body.chunks(1000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
            let mut response = Response::new(stream::iter(pieces).boxed());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response.headers_mut().insert(header::LOCATION, header::HeaderValue::from_static("/keys"));
            Ok(response)
        }
    }

    fn key_sets(directory: &TempDir) -> KeySets {
        KeySets { transport: Arc::new(Scripted), directory: directory.path().to_owned() }
    }

    #[tokio::test]
    async fn a_url_is_read_up_to_its_bound_and_redirects_lead_nowhere() {
        let directory = TempDir::new().unwrap();
        let sets = key_sets(&directory);
        let fetch = async |path: &str| sets.fetch(&KeySetLocation::Url(format!("https://keys.example/{path}"))).await;
        assert_eq!(fetch("keys").await.unwrap(), br#"{ "keys": [] }"#);
        assert_eq!(fetch("just").await.unwrap().len(), MAX_KEY_SET_BYTES);
        assert!(matches!(fetch("long").await, Err(FetchError::TooLong)));
        assert!(matches!(fetch("moved").await, Err(FetchError::Status(307))));
        assert!(matches!(fetch("broken").await, Err(FetchError::Status(500))));
        assert!(matches!(fetch("nowhere").await, Err(FetchError::Unreachable(_))));
    }

    #[tokio::test]
    async fn a_file_is_relative_to_the_tenants_and_read_up_to_its_bound() {
        let directory = TempDir::new().unwrap();
        fs::create_dir(directory.path().join("acme")).unwrap();
        fs::write(directory.path().join("acme/jwks.json"), "keys").unwrap();
        fs::write(directory.path().join("long"), vec![b'x'; MAX_KEY_SET_BYTES + 1]).unwrap();
        let sets = key_sets(&directory);
        let fetch = async |path: &str| sets.fetch(&KeySetLocation::File(path.to_owned())).await;
        assert_eq!(fetch("acme/jwks.json").await.unwrap(), b"keys");
        let absolute = directory.path().join("acme/jwks.json");
        assert_eq!(fetch(absolute.to_str().unwrap()).await.unwrap(), b"keys");
        assert!(matches!(fetch("long").await, Err(FetchError::TooLong)));
        assert!(matches!(fetch("missing").await, Err(FetchError::Unreachable(_))));
    }
}
