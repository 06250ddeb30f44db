//! Variables and secrets, from the environment that the runtime hands over.

use worker::Env;
use worker::js_sys::{JSON, Reflect};
use worker::wasm_bindgen::JsValue;

/// The variables, as a function so that tests have their own.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The variables and secrets of `env`. What stands in `wrangler.toml` as a number, a switch, a list or a table is the same as
/// if its JSON stood there as a text.
pub fn of(env: &Env) -> impl Fn(&str) -> Option<String> {
    move |name| text(&Reflect::get(env, &JsValue::from_str(name)).ok()?)
}

fn text(value: &JsValue) -> Option<String> {
    if value.is_undefined() || value.is_null() {
        return None;
    }
    value.as_string().or_else(|| JSON::stringify(value).ok()?.as_string())
}
