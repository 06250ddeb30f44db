//! `enigma audit`

use std::io::Write;

use enigma_core::Timestamp;
use enigma_core::tools::{AuditQuery, AuditRecord};
use enigma_sqlite::read_audit_records;

use super::CommandError;
use crate::cli::AuditArguments;

/// Records that are read at once.
const PAGE: u32 = 1_000;

/// `enigma audit`
pub(crate) fn show(asked: &AuditArguments, now: Timestamp, out: &mut dyn Write) -> Result<(), CommandError> {
    let query = AuditQuery { tool: asked.tool.clone(), since: asked.since, until: asked.until };
    let (mut left, mut after) = (asked.limit, None);
    while left > 0 {
        let page = read_audit_records(&asked.database, &asked.tenant, &query, after, left.min(PAGE), now)?;
        left -= left.min(u32::try_from(page.records.len()).unwrap_or(u32::MAX));
        for record in &page.records {
            writeln!(out, "{}", line(record, asked.json))?;
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(())
}

/// A record as JSON, or as fields with tabs between: time, tool, outcome, milliseconds, tokens, user, route, request.
fn line(record: &AuditRecord, json: bool) -> String {
    if json {
        return serde_json::to_string(record).expect("a record has no maps with odd keys, so it is JSON");
    }
    let AuditRecord { at, tool, outcome, duration, tokens, user, route, request, .. } = record;
    let milliseconds = duration.as_millis();
    format!("{at}\t{tool}\t{}\t{milliseconds}\t{tokens}\t{user}\t{route}\t{request}", outcome.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::time::Duration;

    use enigma_core::ports::AuditLog;
    use enigma_core::tools::{AuditOutcome, ParamsHash};
    use enigma_core::{AuditId, RequestId, TenantId};
    use enigma_sqlite::{Database, Options, SqliteAuditLog};

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn record(n: u8, tool: &str) -> AuditRecord {
        let uuid = |n: u8| format!("00000000-0000-4000-8000-0000000000{n:02x}").parse();
        AuditRecord {
            id: AuditId::new(uuid(n).unwrap()),
            at: NOW.saturating_sub(Duration::from_secs(n.into())),
            request: RequestId::new(uuid(n).unwrap()),
            trace: "trace".parse().unwrap(),
            route: "/tools/execute".to_owned(),
            user: "ada".parse().unwrap(),
            tool: tool.parse().unwrap(),
            params: ParamsHash::of(&serde_json::json!({ "text": "secret" })),
            outcome: AuditOutcome::Denied,
            duration: Duration::from_millis(12),
            tokens: 7,
            expires_at: NOW.saturating_add(Duration::from_secs(60)),
        }
    }

    fn shown(database: &Path, tenant: &str, change: impl FnOnce(&mut AuditArguments)) -> Vec<String> {
        let mut asked = AuditArguments {
            database: database.to_owned(),
            tenant: tenant.parse().unwrap(),
            tool: None,
            since: None,
            until: None,
            limit: 100,
            json: false,
        };
        change(&mut asked);
        let mut out = Vec::new();
        show(&asked, NOW, &mut out).unwrap();
        String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn records_are_shown_while_the_server_has_the_database() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("enigma.db");
        let database = Database::open(&path, &Options::default()).unwrap();
        let log = SqliteAuditLog::new(database.clone());
        let acme: TenantId = "acme".parse().unwrap();
        for n in 1..=3 {
            log.append(&acme, &record(n, if n == 2 { "summarize" } else { "locked" })).await.unwrap();
        }
        let all = shown(&path, "acme", |_| {});
        assert_eq!(all.len(), 3);
        assert!(all[0].starts_with("2027-01-15T07:59:59Z\tlocked\tdenied\t12\t7\tada\t/tools/execute\t"), "{all:?}");
        assert_eq!(shown(&path, "acme", |asked| asked.tool = Some("summarize".parse().unwrap())), [all[1].clone()]);
        assert_eq!(shown(&path, "acme", |asked| asked.limit = 2), all[..2]);
        let json = shown(&path, "acme", |asked| asked.json = true);
        assert!(json.iter().all(|line| line.starts_with('{') && !line.contains("secret")), "{json:?}");
        assert!(shown(&path, "other", |_| {}).is_empty());
        database.close().await;
    }

    #[test]
    fn what_is_no_database_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let mut out = Vec::new();
        let asked = AuditArguments {
            database: directory.path().join("missing.db"),
            tenant: "acme".parse().unwrap(),
            tool: None,
            since: None,
            until: None,
            limit: 1,
            json: false,
        };
        assert_eq!(show(&asked, NOW, &mut out).unwrap_err().exit_code(), 1);
        assert!(!asked.database.exists(), "it makes none");
    }
}
