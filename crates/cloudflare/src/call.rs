//! Calls of Durable Objects. Each has a deadline: one that hangs never ends by itself.

use std::sync::Arc;
use std::time::Duration;

use enigma_core::{PortError, TenantId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use worker::wasm_bindgen::JsValue;
use worker::{Env, Headers, Method, ObjectNamespace, Request, RequestInit};

use crate::ai::MissingBinding;
use crate::deadline::deadline;
use crate::message::Message;
use crate::names::{Class, ObjectName};

/// How long an object may take for what it does at once. One that is moved or started anew takes a second or two.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(5);

/// How long a question may take that goes from one object to the next. The requests of one subject stand in a line for it: a
/// hundred that come together are decided one after the other.
pub(crate) const IN_LINE: Duration = Duration::from_secs(10);

/// The Durable Objects of this deployment. Cheap to clone.
#[derive(Clone)]
pub struct Objects {
    namespaces: Arc<[ObjectNamespace; 3]>,
}

impl Objects {
    /// The objects that `env` binds.
    ///
    /// # Errors
    /// [`MissingBinding`].
    pub fn from_env(env: &Env) -> Result<Self, MissingBinding> {
        let find = |class: Class| {
            let name = class.binding();
            env.durable_object(name).map_err(|_| MissingBinding { name: name.to_owned() })
        };
        let namespaces = [find(Class::ChatSession)?, find(Class::RateLimiter)?, find(Class::TenantLedger)?];
        Ok(Self { namespaces: Arc::new(namespaces) })
    }

    fn namespace(&self, class: Class) -> &ObjectNamespace {
        let [sessions, limiters, ledgers] = &*self.namespaces;
        match class {
            Class::ChatSession => sessions,
            Class::RateLimiter => limiters,
            Class::TenantLedger => ledgers,
        }
    }

    /// Asks the object `name` what it may be asked twice: once more, when it was reset or moved while it was asked.
    ///
    /// # Errors
    /// [`PortError`] of `port`.
    pub(crate) async fn ask_again<Q: Serialize + Clone, A: DeserializeOwned>(
        &self,
        port: &'static str,
        name: &ObjectName,
        tenant: &TenantId,
        ask: Q,
        limit: Duration,
    ) -> Result<A, PortError> {
        match self.ask(port, name, tenant, ask.clone(), limit).await {
            Err(error @ PortError::Unavailable { .. }) => {
                tracing::warn!(port, error = &error as &dyn std::error::Error, "asks an object again");
                self.ask(port, name, tenant, ask, limit).await
            }
            answered => answered,
        }
    }

    /// Asks the object `name`, for at most `limit`.
    ///
    /// # Errors
    /// [`PortError`] of `port`.
    pub(crate) async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        port: &'static str,
        name: &ObjectName,
        tenant: &TenantId,
        ask: Q,
        limit: Duration,
    ) -> Result<A, PortError> {
        let message = Message { tenant: tenant.clone(), ask };
        let body = serde_json::to_string(&message).map_err(|error| PortError::unavailable(port, error))?;
        // One line for each call, by which the calls of a request are counted.
        tracing::debug!(target: "enigma::subrequest", binding = name.class().binding(), port, "asks an object");
        deadline(port, limit, async {
            let unavailable = |error: worker::Error| PortError::unavailable(port, error.to_string());
            let headers = Headers::new();
            headers.set("content-type", "application/json").map_err(unavailable)?;
            let mut init = RequestInit::new();
            init.with_method(Method::Post).with_headers(headers).with_body(Some(JsValue::from_str(&body)));
            let request = Request::new_with_init("https://object/", &init).map_err(unavailable)?;
            let stub = self.namespace(name.class()).get_by_name(name.as_str()).map_err(unavailable)?;
            let mut response = stub.fetch_with_request(request).await.map_err(unavailable)?;
            let status = response.status_code();
            let text = response.text().await.map_err(unavailable)?;
            if status != 200 {
                return Err(PortError::unavailable(port, format!("the object answered {status}: {text}")));
            }
            serde_json::from_str(&text).map_err(|error| PortError::corrupt(port, error))
        })
        .await
    }
}
