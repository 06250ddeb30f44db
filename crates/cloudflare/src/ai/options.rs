//! What the binding is told about a call.

use enigma_core::model::{CallMetadata, ModelError};
use serde_json::{Map, Value, json};

/// The options of a call: which gateway it goes through, and for whose records. AI Gateway keeps five entries of metadata and
/// drops more in silence; there are four at most, all of them strings.
///
/// # Errors
/// [`ModelError::Rejected`] for a tenant without a gateway where there is no default one. It is not tried again, it says
/// nothing about the provider's health, and a model of another provider may take its place; clients see `ai_error`.
pub(super) fn options(metadata: &CallMetadata, default_gateway: Option<&str>) -> Result<Value, ModelError> {
    let own = metadata.gateway.as_deref();
    // The binding takes an empty id for none, and goes past the gateway.
    let Some(gateway) = [own, default_gateway].into_iter().flatten().map(str::trim).find(|id| !id.is_empty()) else {
        let message = "the tenant has no gateway, and there is no default one".to_owned();
        return Err(ModelError::Rejected { status: 404, message });
    };
    let mut entries = Map::new();
    entries.insert("tenantId".to_owned(), metadata.tenant.as_str().into());
    entries.insert("traceId".to_owned(), metadata.trace.as_str().into());
    if let Some(session) = metadata.session {
        entries.insert("sessionId".to_owned(), session.to_string().into());
    }
    entries.insert("route".to_owned(), metadata.route.into());
    let mut options = json!({ "gateway": { "id": gateway, "metadata": entries } });
    if let Some(traceparent) = &metadata.traceparent {
        options["extraHeaders"] = json!({ "traceparent": traceparent });
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ai::inputs::tests::metadata;
    use enigma_core::SessionId;

    const SESSION: &str = "5e551011-0000-4000-8000-000000000001";

    #[test]
    fn a_whole_call_is_told_with_strings_alone_and_never_more_than_five() {
        let metadata = CallMetadata {
            session: Some(SESSION.parse::<SessionId>().unwrap()),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            gateway: Some("acme-gateway".to_owned()),
            ..metadata()
        };
        let options = options(&metadata, Some("default")).unwrap();
        let expected = json!({
            "gateway": {
                "id": "acme-gateway",
                "metadata": { "tenantId": "acme", "traceId": "trace-1", "sessionId": SESSION, "route": "/chat" },
            },
            "extraHeaders": { "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" },
        });
        assert_eq!(options, expected);
        let entries = options["gateway"]["metadata"].as_object().unwrap();
        assert!(entries.len() <= 5 && entries.values().all(Value::is_string));
    }

    #[test]
    fn what_there_is_not_is_not_told() {
        let options = options(&metadata(), Some("default")).unwrap();
        let metadata = json!({ "tenantId": "acme", "traceId": "trace-1", "route": "/chat" });
        assert_eq!(options, json!({ "gateway": { "id": "default", "metadata": metadata } }));
    }

    #[test]
    fn without_a_gateway_there_is_no_call() {
        for (own, default) in [(None, None), (Some(""), None), (None, Some(" ")), (Some(" "), Some(""))] {
            let metadata = CallMetadata { gateway: own.map(str::to_owned), ..metadata() };
            let error = options(&metadata, default).unwrap_err();
            assert!(matches!(error, ModelError::Rejected { .. }), "{own:?} {default:?}");
            assert!(!error.is_retryable() && error.allows_fallback() && !error.counts_for_breaker());
        }
        let empty = CallMetadata { gateway: Some(String::new()), ..metadata() };
        assert_eq!(options(&empty, Some("default")).unwrap()["gateway"]["id"], "default");
    }
}
