use super::*;
use crate::d1::exact;
use async_trait::async_trait;
use enigma_core::ports::AuditLog;
use rusqlite::{Connection, params_from_iter};
use std::sync::Mutex;

/// SQLite in D1's place: what D1 runs are these statements on this schema, with numbers as JavaScript has them.
struct Stand(Mutex<Connection>);

impl Stand {
    fn new() -> Self {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(include_str!("../../../migrations/0003_audit.sql")).unwrap();
        Self(Mutex::new(connection))
    }

    fn count(&self, statement: &Statement) -> u64 {
        let connection = self.0.lock().unwrap();
        let mut prepared = connection.prepare(&statement.sql).unwrap();
        let rows = prepared.query_map(params_from_iter(&statement.params), |_| Ok(())).unwrap();
        rows.count() as u64
    }

    fn rows(&self, statement: &Statement) -> Vec<Row> {
        let connection = self.0.lock().unwrap();
        let mut prepared = connection.prepare(&statement.sql).unwrap();
        let number = |row: &rusqlite::Row<'_>, n| row.get::<_, i64>(n).map(|number| exact(number.try_into().unwrap()));
        let rows = prepared.query_map(params_from_iter(&statement.params), |row| {
            Ok(Row {
                id: row.get(0)?,
                at: number(row, 1)?,
                request: row.get(2)?,
                trace: row.get(3)?,
                route: row.get(4)?,
                user: row.get(5)?,
                tool: row.get(6)?,
                params: row.get(7)?,
                outcome: row.get(8)?,
                duration: number(row, 9)?,
                tokens: number(row, 10)?,
                expires_at: number(row, 11)?,
            })
        });
        rows.unwrap().collect::<Result<_, _>>().unwrap()
    }
}

#[async_trait]
impl AuditLog for Stand {
    async fn append(&self, tenant: &TenantId, record: &AuditRecord) -> Result<(), PortError> {
        self.count(&delete_expired(tenant, record.at)?);
        self.count(&add(tenant, record)?);
        Ok(())
    }

    async fn list(
        &self,
        tenant: &TenantId,
        query: &AuditQuery,
        after: Option<(Timestamp, AuditId)>,
        limit: u32,
        now: Timestamp,
    ) -> Result<AuditPage, PortError> {
        page(self.rows(&list(tenant, query, after, limit, now)?), limit)
    }

    async fn sweep(&self, tenant: &TenantId, now: Timestamp) -> Result<u64, PortError> {
        Ok(self.count(&delete_expired(tenant, now)?))
    }
}

macro_rules! run {
    ($case:ident) => {
        #[tokio::test]
        async fn $case() {
            enigma_contract::audit_log::$case(&Stand::new()).await;
        }
    };
}
enigma_contract::audit_log_cases!(run);

#[test]
fn every_statement_is_answered_by_an_index() {
    let stand = Stand::new();
    let connection = stand.0.lock().unwrap();
    for sql in [LIST, LIST_OF_TOOL, DELETE_EXPIRED] {
        let mut explained = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let plan: Vec<String> =
            explained.raw_query().mapped(|row| row.get(3)).collect::<rusqlite::Result<_>>().unwrap();
        assert!(plan.iter().all(|step| !step.starts_with("SCAN") && !step.contains("TEMP B-TREE")), "{plan:?}");
    }
}

#[test]
fn what_cannot_have_been_written_is_corrupt() {
    let row = Row {
        id: "6f9619ff-8b86-d011-b42d-00cf4fc964ff".to_owned(),
        at: 1.0,
        request: "6f9619ff-8b86-d011-b42d-00cf4fc964ff".to_owned(),
        trace: "t".to_owned(),
        route: "/tools/execute".to_owned(),
        user: "alice".to_owned(),
        tool: "summarize".to_owned(),
        params: "00".repeat(32),
        outcome: "succeeded".to_owned(),
        duration: 1.0,
        tokens: 1.0,
        expires_at: 2.0,
    };
    assert!(record(row.clone()).is_ok());
    for wrong in [
        Row { id: "1".to_owned(), ..row.clone() },
        Row { at: 0.5, ..row.clone() },
        Row { tool: "a tool".to_owned(), ..row.clone() },
        Row { params: "00".to_owned(), ..row.clone() },
        Row { outcome: "fine".to_owned(), ..row.clone() },
        Row { tokens: -1.0, ..row },
    ] {
        assert!(matches!(record(wrong), Err(PortError::Corrupt { .. })));
    }
}
