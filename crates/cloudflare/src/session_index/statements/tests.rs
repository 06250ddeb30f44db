use super::*;
use crate::d1::exact;
use async_trait::async_trait;
use enigma_core::ports::SessionIndex;
use rusqlite::{Connection, params_from_iter};
use std::sync::Mutex;

/// SQLite in D1's place: what D1 runs are these statements on this schema, with numbers as JavaScript has them.
struct Stand(Mutex<Connection>);

impl Stand {
    fn new() -> Self {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(include_str!("../../../migrations/0001_session_index.sql")).unwrap();
        Self(Mutex::new(connection))
    }

    fn run(&self, statement: &Statement) {
        self.0.lock().unwrap().execute(&statement.sql, params_from_iter(&statement.params)).unwrap();
    }

    fn rows(&self, statement: &Statement) -> Vec<Row> {
        let connection = self.0.lock().unwrap();
        let mut prepared = connection.prepare(&statement.sql).unwrap();
        let number = |row: &rusqlite::Row<'_>, n| row.get::<_, i64>(n).map(|number| exact(number.try_into().unwrap()));
        let rows = prepared.query_map(params_from_iter(&statement.params), |row| {
            Ok(Row {
                session: row.get(0)?,
                user: row.get(1)?,
                created_at: number(row, 2)?,
                updated_at: number(row, 3)?,
                message_count: number(row, 4)?,
                token_count: number(row, 5)?,
            })
        });
        rows.unwrap().collect::<Result<_, _>>().unwrap()
    }
}

#[async_trait]
impl SessionIndex for Stand {
    async fn record(&self, tenant: &TenantId, summary: &SessionSummary) -> Result<(), PortError> {
        self.run(&put(tenant, summary)?);
        Ok(())
    }

    async fn list<'a>(
        &self,
        tenant: &TenantId,
        user: Option<&'a UserId>,
        since: Timestamp,
        after: Option<(Timestamp, SessionId)>,
        limit: u32,
    ) -> Result<SessionPage, PortError> {
        page(self.rows(&list(tenant, user, since, after, limit)?), limit)
    }

    async fn remove(&self, tenant: &TenantId, session: &SessionId) -> Result<(), PortError> {
        self.run(&delete(tenant, session));
        Ok(())
    }
}

macro_rules! run {
    ($case:ident) => {
        #[tokio::test]
        async fn $case() {
            enigma_contract::session_index::$case(&Stand::new()).await;
        }
    };
}
enigma_contract::session_index_cases!(run);

fn row() -> Row {
    Row {
        session: "6f9619ff-8b86-d011-b42d-00cf4fc964ff".to_owned(),
        user: "alice".to_owned(),
        created_at: 1.0,
        updated_at: 2.0,
        message_count: 3.0,
        token_count: 4.0,
    }
}

#[test]
fn every_statement_names_the_tenant_first() {
    for sql in [PUT, LIST, LIST_OF_USER, DELETE] {
        let adds = sql.contains("(tenant, ") && sql.contains("VALUES (?1, ") && sql.contains("ON CONFLICT (tenant, ");
        assert!(adds || sql.contains("WHERE tenant = ?1 AND "), "{sql}");
    }
}

#[test]
fn lists_are_read_from_an_index_without_sorting() {
    let stand = Stand::new();
    let connection = stand.0.lock().unwrap();
    let tenant = TenantId::new("acme").unwrap();
    for user in [None, Some(UserId::new("alice").unwrap())] {
        let statement = list(&tenant, user.as_ref(), Timestamp::from_millis(0), None, 10).unwrap();
        let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {}", statement.sql)).unwrap();
        let steps = plan.query_map(params_from_iter(&statement.params), |row| row.get::<_, String>(3)).unwrap();
        let steps: Vec<_> = steps.map(Result::unwrap).collect();
        let index = if user.is_some() { "session_index_by_user" } else { "session_index_by_time" };
        assert!(steps.len() == 1 && steps[0].contains(index), "{steps:?}");
    }
}

#[test]
fn what_cannot_have_been_written_is_an_error() {
    assert!(page(vec![row()], 1).is_ok());
    let wrong = [
        Row { session: "x".to_owned(), ..row() },
        Row { user: String::new(), ..row() },
        Row { created_at: -1.0, ..row() },
        Row { updated_at: 0.5, ..row() },
        Row { updated_at: f64::NAN, ..row() },
        Row { updated_at: f64::INFINITY, ..row() },
        Row { message_count: exact(1 << 32), ..row() },
        Row { token_count: exact(1 << 53) * 2.0, ..row() },
    ];
    for row in wrong {
        assert!(matches!(page(vec![row.clone()], 1), Err(PortError::Corrupt { .. })), "{row:?}");
    }
}
