//! A Worker for tests. It answers as the real one does, and on some paths more:
//!
//! | path | what it does |
//! |---|---|
//! | `/contract/{port}/{case}?realm={name}` | runs a case of the port's contract suite over the real bindings |
//! | `/faults/handler` | panics while it handles the request |
//! | `/faults/object?tenant={id}` | makes the tenant's object panic, and tells what its caller sees |
//! | `/stores` | asks the stores of retrieval what the body says, and tells what came of it |
//! | `/object/{binding}?name={name}` | hands the body to the object of that name, and tells what it answers |
//!
//! It is never deployed.
#![expect(clippy::future_not_send, reason = "an isolate has one thread")]
#![expect(clippy::panic, reason = "this is test code: a panic is what it is for")]

mod contract;
mod objects;
mod stores;

use axum::body::Body;
use enigma_worker::{guarded, handle};
use http::Response;
use worker::{Context, Env, HttpRequest, Url, event};

pub use enigma_worker::{ChatSession, RateLimiter, TenantLedger};

#[event(fetch)]
async fn fetch(request: HttpRequest, env: Env, context: Context) -> worker::Result<Response<Body>> {
    let url = Url::parse(&request.uri().to_string())?;
    let query = |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    let segments: Vec<_> = url.path_segments().map(Iterator::collect).unwrap_or_default();
    let answer = match segments[..] {
        ["contract", port, case] => contract::run(&env, port, case, &query("realm").unwrap_or_default()).await,
        ["faults", "handler"] => {
            return Ok(guarded(request, async |_| panic!("as the test wants it")).await);
        }
        ["faults", "object"] => {
            let name = query("tenant").unwrap_or_default();
            objects::tell(&env, "TENANT_LEDGER", &name, "panic".to_owned()).await?
        }
        ["stores"] => {
            let ask = serde_json::from_str(&body(request).await?)?;
            (200, stores::act(&env, &ask).await)
        }
        ["object", binding] => {
            let text = body(request).await?;
            objects::tell(&env, binding, &query("name").unwrap_or_default(), text).await?
        }
        _ => return Ok(handle(request, &env, context).await),
    };
    let (status, text) = answer;
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    Ok(response)
}

async fn body(request: HttpRequest) -> worker::Result<String> {
    let body = axum::body::to_bytes(Body::new(request.into_body()), 1 << 20).await;
    let body = body.map_err(|error| worker::Error::RustError(error.to_string()))?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}
