//! Usage as data points of Analytics Engine, for queries over many tenants. It samples, forgets after three months, and cannot be
//! read from here: what bills rest on is in the tenants' books.

use enigma_core::TenantId;
use enigma_core::ledger::Settlement;
use enigma_core::usage::UsageRecord;
use serde_json::{Value, json};
use worker::Env;
use worker::js_sys::{self, JSON, Reflect};
use worker::send::SendWrapper;
use worker::wasm_bindgen;
use worker::wasm_bindgen::prelude::*;

/// The binding of the dataset.
const BINDING: &str = "USAGE";

#[wasm_bindgen]
extern "C" {
    /// Structural, as the class is called otherwise on a developer's machine.
    #[wasm_bindgen(extends = js_sys::Object)]
    #[derive(Clone)]
    type Dataset;

    #[wasm_bindgen(method, catch, js_name = writeDataPoint)]
    fn write_data_point(this: &Dataset, point: &JsValue) -> Result<(), JsValue>;
}

/// The dataset of a deployment.
#[derive(Clone)]
pub struct UsageDataset(SendWrapper<Dataset>);

impl UsageDataset {
    /// The dataset that `env` calls `USAGE`; `None` where there is none.
    pub fn from_env(env: &Env) -> Option<Self> {
        let dataset = Reflect::get(env, &JsValue::from_str(BINDING)).ok()?;
        let there = !dataset.is_undefined() && !dataset.is_null();
        there.then(|| Self(SendWrapper::new(dataset.unchecked_into())))
    }

    /// Hands a point over, without waiting for it. One that is lost is missed in a chart.
    pub(crate) fn write(&self, tenant: &TenantId, record: &UsageRecord, settlement: Settlement) {
        let written = JSON::parse(&point(tenant, record, settlement).to_string())
            .and_then(|point| self.0.write_data_point(&point));
        if let Err(error) = written {
            tracing::debug!(%tenant, ?error, "a data point was not written");
        }
    }
}

/// At most one index, 20 texts and 20 numbers are taken; a point with more is dropped. Never what a user said, or who.
fn point(tenant: &TenantId, record: &UsageRecord, settlement: Settlement) -> Value {
    let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    json!({
        "indexes": [tenant.as_str()],
        "blobs": [
            record.route,
            record.model.as_str(),
            record.provider.as_ref().map_or("", |provider| provider.as_str()),
            record.ending.as_str(),
            if record.estimated { "estimated" } else { "reported" },
        ],
        "doubles": [
            record.tokens_in,
            record.tokens_out,
            settlement.charged,
            settlement.overrun,
            millis(record.latency),
            record.first_token.map_or(0, millis),
            record.characters.unwrap_or(0),
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use enigma_core::usage::Ending;
    use enigma_core::{ModelId, RequestId, Timestamp, TraceId, UserId};
    use std::time::Duration;
    use uuid::Uuid;

    #[test]
    fn a_point_tells_what_was_used_and_not_by_whom() {
        let record = UsageRecord {
            request: RequestId::new(Uuid::nil()),
            trace: TraceId::new("t").unwrap(),
            route: "/chat".to_owned(),
            user: UserId::new("alice").unwrap(),
            session: None,
            model: ModelId::new("m").unwrap(),
            provider: None,
            at: Timestamp::from_millis(0),
            latency: Duration::from_millis(250),
            first_token: Some(Duration::from_millis(40)),
            tokens_in: 3,
            tokens_out: 4,
            characters: Some(12),
            estimated: true,
            charged: 0,
            overrun: 0,
            ending: Ending::Finished,
        };
        let point = point(&TenantId::new("acme").unwrap(), &record, Settlement { charged: 7, overrun: 1 });
        assert_eq!(point["indexes"], json!(["acme"]));
        assert_eq!(point["blobs"], json!(["/chat", "m", "", "finished", "estimated"]));
        assert_eq!(point["doubles"], json!([3, 4, 7, 1, 250, 40, 12]));
        assert!(!point.to_string().contains("alice"));
    }
}
