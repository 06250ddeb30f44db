//! The ledgers as the writer's thread keeps them: in memory, and in rows that say the same.

use std::collections::{HashMap, HashSet};

use enigma_core::TenantId;
use enigma_core::ledger::{Account, Hold, HoldChange, Ledger};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::columns::{Col, get};
use crate::error::StoreError;
use crate::sql;

/// The ledgers in use: one for each tenant that has asked, with the holds of its running requests.
///
/// A ledger in memory is as its rows will be when the transaction commits. Whoever rolls something back has to say so.
#[derive(Debug, Default)]
pub(crate) struct Ledgers {
    cached: HashMap<TenantId, Ledger>,
    touched_by_job: HashSet<TenantId>,
    touched_by_group: HashSet<TenantId>,
}

impl Ledgers {
    /// Does `operation` with the ledger of `tenant` and writes what it changed.
    pub(crate) fn apply<T>(
        &mut self,
        connection: &Connection,
        tenant: &TenantId,
        operation: impl FnOnce(&mut Ledger) -> T,
    ) -> Result<T, StoreError> {
        self.touched_by_job.insert(tenant.clone());
        let ledger = match self.cached.remove(tenant) {
            Some(ledger) => ledger,
            None => load(connection, tenant)?,
        };
        let ledger = self.cached.entry(tenant.clone()).or_insert(ledger);
        let before = (*ledger.day(), *ledger.month());
        let outcome = operation(ledger);
        let after = (*ledger.day(), *ledger.month());
        for change in ledger.take_changes() {
            write_change(connection, tenant, &change)?;
        }
        if before != after {
            write_accounts(connection, tenant, &after.0, &after.1)?;
        }
        Ok(outcome)
    }

    /// The job's savepoint was released.
    pub(crate) fn job_done(&mut self) {
        self.touched_by_group.extend(self.touched_by_job.drain());
    }

    /// The job's savepoint was rolled back.
    pub(crate) fn job_undone(&mut self) {
        for tenant in self.touched_by_job.drain() {
            self.cached.remove(&tenant);
        }
    }

    /// The group's transaction was committed.
    pub(crate) fn group_done(&mut self) {
        self.touched_by_group.clear();
    }

    /// The group's transaction was rolled back.
    pub(crate) fn group_undone(&mut self) {
        self.job_undone();
        for tenant in self.touched_by_group.drain() {
            self.cached.remove(&tenant);
        }
    }
}

fn load(connection: &Connection, tenant: &TenantId) -> Result<Ledger, StoreError> {
    let account = |row: &Row<'_>, first| -> rusqlite::Result<Account> {
        Ok(Account { start: get(row, first)?, settled: get(row, first + 1)?, overrun: get(row, first + 2)? })
    };
    let accounts = connection
        .prepare_cached(sql::LEDGER_FIND)?
        .query_row([Col(tenant)], |row| Ok((account(row, 0)?, account(row, 3)?)))
        .optional()?;
    let (day, month) = accounts.unwrap_or_default();
    let holds = connection
        .prepare_cached(sql::HOLDS_OF)?
        .query_map([Col(tenant)], |row| {
            let hold = Hold { tokens: get(row, 1)?, expires_at: get(row, 2)?, day: get(row, 3)?, month: get(row, 4)? };
            Ok((get(row, 0)?, hold))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(Ledger::restore(day, month, holds))
}

fn write_change(connection: &Connection, tenant: &TenantId, change: &HoldChange) -> Result<(), StoreError> {
    match change {
        HoldChange::Made(request, hold) => connection.prepare_cached(sql::HOLD_ADD)?.execute(params![
            Col(tenant),
            Col(request),
            Col(hold.tokens),
            Col(hold.expires_at),
            Col(hold.day),
            Col(hold.month)
        ])?,
        HoldChange::Ended(request) => {
            connection.prepare_cached(sql::HOLD_DELETE)?.execute(params![Col(tenant), Col(request)])?
        }
    };
    Ok(())
}

fn write_accounts(
    connection: &Connection,
    tenant: &TenantId,
    day: &Account,
    month: &Account,
) -> Result<(), StoreError> {
    connection.prepare_cached(sql::LEDGER_PUT)?.execute(params![
        Col(tenant),
        Col(day.start),
        Col(day.settled),
        Col(day.overrun),
        Col(month.start),
        Col(month.settled),
        Col(month.overrun)
    ])?;
    Ok(())
}
