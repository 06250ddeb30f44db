//! Durable Objects, addressed by hand.

use worker::wasm_bindgen::JsValue;
use worker::{Env, Method, Request, RequestInit};

/// What the object `name` behind `binding` answers `body`.
pub(crate) async fn tell(env: &Env, binding: &str, name: &str, body: String) -> worker::Result<(u16, String)> {
    let mut init = RequestInit::new();
    init.with_method(Method::Post).with_body(Some(JsValue::from_str(&body)));
    let request = Request::new_with_init("https://object/", &init)?;
    let mut response = env.durable_object(binding)?.get_by_name(name)?.fetch_with_request(request).await?;
    Ok((response.status_code(), response.text().await?))
}
