//! crispy-enigma as a Cloudflare Worker: its settings, its wiring, and the entry through which requests come.
//!
//! What it decides, the core decides; what it keeps, Durable Objects, D1 and KV keep (`enigma-cloudflare`); what it says, the
//! router says that the native server has too (`enigma-http`).

pub mod config;
mod logging;
mod presence;
mod retrieval;
mod tenants;
mod transport;
mod wiring;

use std::cell::OnceCell;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use enigma_cloudflare::{WaitUntil, WorkerIds};
use enigma_core::ports::Background;
use enigma_core::tenant::ClientAddress;
use enigma_http::{ErrorCode, refuse};
use futures_util::FutureExt;
use http::HeaderMap;
use tower::Service;
use worker::{AbortSignal, Context, Env, HttpRequest};

use crate::presence::Presence;

pub use self::retrieval::Retrieval;
pub use enigma_cloudflare::{ChatSession, RateLimiter, TenantLedger};

thread_local! {
    /// The router of this isolate, made at its first request. `None` where it cannot be made.
    static ROUTER: OnceCell<Option<Router>> = const { OnceCell::new() };
}

/// The entry of the Worker.
///
/// # Errors
/// None: whatever goes wrong is answered.
#[cfg(feature = "entry")]
#[worker::event(fetch)]
async fn fetch(request: HttpRequest, env: Env, context: Context) -> worker::Result<http::Response<Body>> {
    Ok(handle(request, &env, context).await)
}

/// Answers a request. A panic is answered too: it ends its own request and nothing else.
pub async fn handle(request: HttpRequest, env: &Env, context: Context) -> http::Response<Body> {
    guarded(request, async |request| route(request, env, context).await).await
}

/// What `act` makes of `request`, or the error that is told instead, also when `act` panics.
pub async fn guarded(
    request: HttpRequest,
    act: impl AsyncFnOnce(HttpRequest) -> Result<http::Response<Body>, ErrorCode>,
) -> http::Response<Body> {
    // All that an error's shape depends on.
    let mut asked = http::Request::new(());
    *asked.uri_mut() = request.uri().clone();
    *asked.headers_mut() = request.headers().clone();
    let answered = AssertUnwindSafe(act(request)).catch_unwind().await;
    answered.unwrap_or(Err(ErrorCode::Internal)).unwrap_or_else(|code| refuse(&asked, code, &WorkerIds))
}

async fn route(request: HttpRequest, env: &Env, context: Context) -> Result<http::Response<Body>, ErrorCode> {
    let mut router = router(env).ok_or(ErrorCode::Unavailable)?;
    let mut request = request.map(Body::new);
    let presence = Presence::of(request.extensions_mut().remove::<AbortSignal>());
    let address = client_address(request.headers());
    let background: Arc<dyn Background> = Arc::new(WaitUntil::new(Arc::new(context)));
    request.extensions_mut().insert(address);
    request.extensions_mut().insert(background);
    // Of a client that has gone, nobody reads what it is told.
    let Ok(response) = presence.race(router.call(request)).await.ok_or(ErrorCode::Unavailable)?;
    Ok(response.map(|body| presence.watch(body)))
}

/// Where the request came from, as the platform says, which overwrites what a client sends under this name.
fn client_address(headers: &HeaderMap) -> ClientAddress {
    let said = headers.get("cf-connecting-ip").and_then(|value| value.to_str().ok());
    let address = said.and_then(|address| address.parse().ok());
    address.map_or_else(|| ClientAddress::new("unknown"), ClientAddress::of_ip)
}

/// The isolate's router. What is wrong with its making is logged once, as nothing changes it but a new deployment.
fn router(env: &Env) -> Option<Router> {
    ROUTER.with(|router| {
        let made = router.get_or_init(|| {
            let config = wiring::config(env);
            logging::start(config.as_ref().map_or(tracing::Level::INFO, |config| config.log_level));
            let made = config.map_err(wiring::StartError::from).and_then(|config| wiring::router(&config, env));
            made.inspect_err(|error| {
                let error: &dyn std::error::Error = error;
                tracing::error!(error, "this Worker answers nothing");
            })
            .ok()
        });
        made.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_its_address_or_its_network() {
        let client = |address: &str| {
            let headers =
                HeaderMap::from_iter([(http::HeaderName::from_static("cf-connecting-ip"), address.parse().unwrap())]);
            client_address(&headers).as_str().to_owned()
        };
        assert_eq!(client("192.0.2.1"), "192.0.2.1");
        assert_eq!(client("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(client("2001:db8:1:2:3::4"), "2001:db8:1:2::/64");
        assert_eq!(client("2001:db8:1:2:ffff::"), client("2001:db8:1:2::1"));
        assert_eq!(client("somewhere"), "unknown");
        assert_eq!(client_address(&HeaderMap::new()).as_str(), "unknown");
    }
}
