//! Compression of answers, where it is switched on. Only of those that are there as a whole: an event stream has to arrive as it
//! is made, and nothing that could hold it back comes near it.

use std::io::{self, Write};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, VARY,
};
use http::{HeaderMap, HeaderValue};
use http_body::Body as _;
use http_body_util::BodyExt;

/// A shorter answer fits into a packet anyway.
const LEAST_BYTES: u64 = 1024;
/// A longer one is not held in memory twice.
const MOST_BYTES: u64 = 8 << 20;
/// From here on it takes long enough that other answers would notice.
const LONG_BYTES: usize = 64 << 10;

/// The router, with its answers compressed for those who ask for it.
pub(crate) fn layer(router: Router) -> Router {
    router.layer(from_fn(compress))
}

async fn compress(request: Request, next: Next) -> Response {
    let wanted = accepts_gzip(request.headers());
    let mut response = next.run(request).await;
    if !is_compressible(&response) {
        return response;
    }
    // Said to everybody, so that no cache gives one client's form to another.
    response.headers_mut().append(VARY, HeaderValue::from_static("accept-encoding"));
    if wanted { gzipped(response).await } else { response }
}

/// Whether the answer is text that is there as a whole, and is nobody's business but its own.
fn is_compressible(response: &Response) -> bool {
    let headers = response.headers();
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = text(CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
    let is_text = kind.eq_ignore_ascii_case("application/json") || kind.eq_ignore_ascii_case("text/plain");
    let is_whole =
        response.body().size_hint().exact().is_some_and(|length| (LEAST_BYTES..=MOST_BYTES).contains(&length));
    let is_plain = ![CONTENT_ENCODING, CONTENT_RANGE, ETAG].iter().any(|name| headers.contains_key(name));
    is_text && is_whole && is_plain && !text(CACHE_CONTROL).contains("no-transform")
}

/// Whether the client takes gzip (RFC 9110, section 12.5.3). What is not named is not sent.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let refused =
            parts.filter_map(|part| part.strip_prefix("q=")).any(|q| q.parse::<f32>().is_ok_and(|q| q <= 0.0));
        name.eq_ignore_ascii_case("gzip") && !refused
    })
}

async fn gzipped(response: Response) -> Response {
    let (mut head, body) = response.into_parts();
    let plain = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            return Response::from_parts(head, Body::from_stream(futures_util::stream::iter([Err::<Bytes, _>(error)])));
        }
    };
    let packed = if plain.len() < LONG_BYTES {
        gzip(&plain)
    } else {
        let plain = plain.clone();
        tokio::task::spawn_blocking(move || gzip(&plain)).await.map_err(io::Error::other).flatten()
    };
    let Ok(packed) = packed else { return Response::from_parts(head, plain.into()) };
    head.headers.remove(CONTENT_LENGTH);
    head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    Response::from_parts(head, packed.into())
}

fn gzip(plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
    encoder.write_all(plain)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use flate2::read::GzDecoder;
    use std::io::Read;
    use tower::ServiceExt;

    const LONG: usize = 200_000;

    async fn ask(path: &str, accept: &str) -> (HeaderMap, Vec<u8>) {
        let typed = |kind: &'static str, body: Body| async move { ([(CONTENT_TYPE, kind)], body) };
        let pieces = || Body::from_stream(futures_util::stream::iter([Ok::<_, io::Error>("x".repeat(LONG))]));
        let router = Router::new()
            .route("/json", get(move || typed("application/json", "{}".repeat(1000).into())))
            .route("/long", get(move || typed("text/plain; charset=utf-8", "x".repeat(LONG).into())))
            .route("/tiny", get(move || typed("application/json", "{}".into())))
            .route("/events", get(move || typed("text/event-stream", "x".repeat(LONG).into())))
            .route("/pieces", get(move || typed("application/json", pieces())))
            .route(
                "/packed",
                get(|| async { ([(CONTENT_TYPE, "text/plain"), (CONTENT_ENCODING, "br")], "x".repeat(LONG)) }),
            );
        let request = Request::get(path).header(ACCEPT_ENCODING, accept).body(Body::empty()).unwrap();
        let response = layer(router).oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        (head.headers, body.collect().await.unwrap().to_bytes().to_vec())
    }

    #[tokio::test]
    async fn whole_texts_are_compressed_for_those_who_ask() {
        for (path, expected) in [("/json", "{}".repeat(1000)), ("/long", "x".repeat(LONG))] {
            for accept in ["gzip", "br, gzip;q=0.5", "deflate, GZIP"] {
                let (headers, body) = ask(path, accept).await;
                assert_eq!(headers[CONTENT_ENCODING], "gzip");
                assert_eq!(headers[VARY], "accept-encoding");
                assert!(headers.get(CONTENT_LENGTH).is_none_or(|length| *length == body.len().to_string()));
                let mut plain = String::new();
                GzDecoder::new(&body[..]).read_to_string(&mut plain).unwrap();
                assert!(plain == expected, "{path}");
            }
        }
        for accept in ["", "br", "gzip;q=0", "gzip; q=0.0", "*"] {
            let (headers, body) = ask("/json", accept).await;
            assert!(!headers.contains_key(CONTENT_ENCODING) && body.starts_with(b"{}"), "{accept}");
            assert_eq!(headers[VARY], "accept-encoding");
        }
    }

    #[tokio::test]
    async fn streams_short_answers_and_what_is_compressed_already_are_left_alone() {
        for path in ["/events", "/pieces", "/tiny"] {
            let (headers, body) = ask(path, "gzip").await;
            assert!(!headers.contains_key(CONTENT_ENCODING) && !headers.contains_key(VARY), "{path}");
            assert!(body.starts_with(b"x") || body == b"{}");
        }
        assert_eq!(ask("/packed", "gzip").await.0[CONTENT_ENCODING], "br");
    }
}
