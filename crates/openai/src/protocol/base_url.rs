//! From a configured base URL to the addresses of what stands below it.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::Uri;
use http::uri::PathAndQuery;

use super::InvalidEndpoint;

/// The addresses below a base URL.
#[derive(Debug, Clone)]
pub(super) struct Routes {
    pub(super) chat_completions: Uri,
    pub(super) embeddings: Uri,
    pub(super) speech: Uri,
}

const CHAT_COMPLETIONS: &str = "/chat/completions";
const EMBEDDINGS: &str = "/embeddings";
const SPEECH: &str = "/audio/speech";

/// The addresses below `base_url`. A query stays at the end: some clouds want their version there.
///
/// What passes here also passes the stricter parsers of the transports, so that a wrong URL is found at the start and not by
/// the first request.
pub(super) fn routes(base_url: &str) -> Result<Routes, InvalidEndpoint> {
    let text = base_url.trim();
    if text.contains('#') {
        return Err(InvalidEndpoint::BaseUrl("it must not have a fragment"));
    }
    let uri: Uri = text.parse().map_err(|_| InvalidEndpoint::BaseUrl("it is not a URL"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(InvalidEndpoint::BaseUrl("it must start with http:// or https://"));
    }
    let authority = uri.authority().ok_or(InvalidEndpoint::BaseUrl("it has no host"))?;
    if authority.as_str().contains('@') {
        return Err(InvalidEndpoint::BaseUrl("credentials belong into the API key or a header"));
    }
    let after_host = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    if !after_host.is_empty() && authority.port_u16().is_none_or(|port| port == 0) {
        return Err(InvalidEndpoint::BaseUrl("its port is not one"));
    }
    if !is_host(authority.host()) {
        return Err(InvalidEndpoint::BaseUrl("its host is not one"));
    }
    let path = uri.path().trim_end_matches('/');
    if path.ends_with(CHAT_COMPLETIONS) {
        return Err(InvalidEndpoint::BaseUrl("it must not include /chat/completions"));
    }
    if path.ends_with(EMBEDDINGS) {
        return Err(InvalidEndpoint::BaseUrl("it must not include /embeddings"));
    }
    if path.ends_with(SPEECH) {
        return Err(InvalidEndpoint::BaseUrl("it must not include /audio/speech"));
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let below = |route: &str| {
        let path_and_query: PathAndQuery =
            format!("{path}{route}{query}").parse().map_err(|_| InvalidEndpoint::BaseUrl("its path is not one"))?;
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(path_and_query);
        Uri::from_parts(parts).map_err(|_| InvalidEndpoint::BaseUrl("it is not a URL"))
    };
    Ok(Routes { chat_completions: below(CHAT_COMPLETIONS)?, embeddings: below(EMBEDDINGS)?, speech: below(SPEECH)? })
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[') {
        return address.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let last = name.rsplit('.').next().unwrap_or_default();
    // A name whose last label is a number is an address (WHATWG URL, section 3.5, *ends in a number*).
    if last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x") {
        return name.parse::<Ipv4Addr>().is_ok();
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    name.split('.').all(|label| !label.is_empty() && label.len() <= 63 && label.bytes().all(allowed))
}

/// A base URL for people to read: whatever may hold a key is left out.
pub(super) fn for_display(base_url: &str) -> &str {
    if base_url.contains('@') {
        return "redacted";
    }
    base_url.split(['?', '#']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_route_is_appended_to_the_path_and_a_query_stays() {
        for (base, full) in [
            ("http://127.0.0.1:11434/v1", "http://127.0.0.1:11434/v1/chat/completions"),
            (" https://api.example.com/v1/ ", "https://api.example.com/v1/chat/completions"),
            ("http://localhost", "http://localhost/chat/completions"),
            ("http://[::1]:8080/v1", "http://[::1]:8080/v1/chat/completions"),
            ("HTTP://vllm_1.svc.:80", "http://vllm_1.svc.:80/chat/completions"),
            ("https://h/d/m?api-version=1&x=/", "https://h/d/m/chat/completions?api-version=1&x=/"),
        ] {
            let routes = routes(base).unwrap();
            assert_eq!(routes.chat_completions.to_string(), full, "{base}");
            assert_eq!(routes.embeddings.to_string(), full.replace("/chat/completions", "/embeddings"), "{base}");
        }
    }

    #[test]
    fn what_is_no_base_url_is_refused_at_the_start() {
        for base in [
            "",
            "localhost",
            "localhost:11434",
            "/v1",
            "ftp://h/v1",
            "http://",
            "http:///v1",
            "http://u:p@h/v1",
            "http://h:0/v1",
            "http://h:99999/v1",
            "http://h:/v1",
            "http://[::g]/",
            "http://1.2.3.4.5/",
            "http://a b/",
            "http://h/v1#x",
            "http://h/v1/chat/completions",
            "http://h/v1/chat/completions/",
            "http://h/v1/embeddings",
            "http://ä.example/",
            "http://a%20b/",
            "http://a..b/",
        ] {
            assert!(routes(base).is_err(), "{base}");
        }
    }

    #[test]
    fn what_may_hold_a_key_is_not_displayed() {
        assert_eq!(for_display("http://h/v1?key=sk"), "http://h/v1");
        assert_eq!(for_display("http://u:sk@h/v1"), "redacted");
    }
}
