//! The list of sessions, in D1.

mod statements;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use enigma_core::ports::SessionIndex;
use enigma_core::session::{SessionPage, SessionSummary};
use enigma_core::{PortError, SessionId, TenantId, Timestamp, UserId};
use worker::wasm_bindgen::JsValue;
use worker::{D1Database, D1PreparedStatement, Env};

use self::statements::{Param, Row, Statement};
use crate::deadline::deadline;

const PORT: &str = "session index";

/// The binding of the database.
const BINDING: &str = "DB";

/// How long D1 may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Lists sessions from a D1 database of the schema in `migrations/`. For the Worker and for Durable Objects alike.
#[derive(Debug, Clone)]
pub struct D1SessionIndex {
    database: Arc<D1Database>,
}

impl D1SessionIndex {
    /// The index in the database that `env` calls `DB`.
    ///
    /// # Errors
    /// [`PortError`] when there is no such binding, or it is no D1 database.
    pub fn from_env(env: &Env) -> Result<Self, PortError> {
        Ok(Self { database: Arc::new(env.d1(BINDING).map_err(|error| failed(&error))?) })
    }

    fn prepare(&self, statement: &Statement) -> Result<D1PreparedStatement, PortError> {
        tracing::debug!(target: "enigma::subrequest", binding = BINDING, port = PORT, "asks D1");
        let params: Vec<JsValue> = statement.params.iter().map(js).collect();
        self.database.prepare(statement.sql).bind(&params).map_err(|error| failed(&error))
    }

    async fn run(&self, statement: &Statement) -> Result<(), PortError> {
        deadline(PORT, LIMIT, async {
            self.prepare(statement)?.run().await.map_err(|error| failed(&error))?;
            Ok(())
        })
        .await
    }

    async fn rows(&self, statement: &Statement) -> Result<Vec<Row>, PortError> {
        deadline(PORT, LIMIT, async {
            let result = self.prepare(statement)?.all().await.map_err(|error| failed(&error))?;
            result.results().map_err(|error| PortError::corrupt(PORT, error.to_string()))
        })
        .await
    }
}

#[async_trait]
impl SessionIndex for D1SessionIndex {
    async fn record(&self, tenant: &TenantId, summary: &SessionSummary) -> Result<(), PortError> {
        self.run(&statements::put(tenant, summary)?).await
    }

    async fn list<'a>(
        &self,
        tenant: &TenantId,
        user: Option<&'a UserId>,
        since: Timestamp,
        after: Option<(Timestamp, SessionId)>,
        limit: u32,
    ) -> Result<SessionPage, PortError> {
        let rows = self.rows(&statements::list(tenant, user, since, after, limit)?).await?;
        statements::page(rows, limit)
    }

    async fn remove(&self, tenant: &TenantId, session: &SessionId) -> Result<(), PortError> {
        self.run(&statements::delete(tenant, session)).await
    }
}

fn js(param: &Param) -> JsValue {
    match param {
        Param::Text(text) => JsValue::from_str(text),
        Param::Number(number) => JsValue::from_f64(*number),
    }
}

/// The SDK's own text for D1's errors is a dump of an object; what D1 said is inside.
fn failed(error: &worker::Error) -> PortError {
    let said = match error {
        worker::Error::D1(error) => error.cause(),
        other => other.to_string(),
    };
    PortError::unavailable(PORT, said)
}
