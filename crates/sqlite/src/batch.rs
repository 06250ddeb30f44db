//! What of the books is not on the disk yet, put together: of what changed several times only the last state is written, and of
//! a hold that was made and ended in between nothing at all.

use std::collections::HashMap;

use enigma_core::ledger::{Account, Hold, HoldChange};
use enigma_core::usage::UsageRecord;
use enigma_core::{RequestId, TenantId};
use rusqlite::{Connection, params};
use tokio::sync::oneshot;

use crate::columns::Col;
use crate::error::StoreError;
use crate::{sql, telemetry};

/// A change of a tenant's books.
pub(crate) struct Entry {
    pub(crate) tenant: TenantId,
    pub(crate) changes: Vec<HoldChange>,
    /// The books of the day and of the month, if they changed.
    pub(crate) accounts: Option<(Account, Account)>,
    pub(crate) usage: Option<UsageRecord>,
    /// Who waits until it is written.
    pub(crate) reply: Option<oneshot::Sender<Result<(), StoreError>>>,
}

/// A hold, as the disk has to learn of it.
#[derive(Debug, PartialEq, Eq)]
enum HoldRow {
    /// The disk does not know it.
    New(Hold),
    /// The disk knows one of the same request that has ended.
    Renewed(Hold),
    /// The disk knows it, and it has ended.
    Gone,
}

/// Changes that are written together. What could not be written stays, and is written with what comes next.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    accounts: HashMap<TenantId, (Account, Account)>,
    holds: HashMap<TenantId, HashMap<RequestId, HoldRow>>,
    usage: Vec<(TenantId, UsageRecord)>,
    waiting: Vec<oneshot::Sender<Result<(), StoreError>>>,
    entries: usize,
}

impl Batch {
    pub(crate) fn add(&mut self, entry: Entry) {
        let Entry { tenant, changes, accounts, usage, reply } = entry;
        self.entries += 1;
        self.waiting.extend(reply);
        if !changes.is_empty() {
            let rows = match self.holds.get_mut(&tenant) {
                Some(rows) => rows,
                None => self.holds.entry(tenant.clone()).or_default(),
            };
            for change in changes {
                match change {
                    HoldChange::Made(request, hold) => {
                        let is_known = matches!(rows.get(&request), Some(HoldRow::Gone | HoldRow::Renewed(_)));
                        rows.insert(request, if is_known { HoldRow::Renewed(hold) } else { HoldRow::New(hold) });
                    }
                    HoldChange::Ended(request) => {
                        if !matches!(rows.remove(&request), Some(HoldRow::New(_))) {
                            rows.insert(request, HoldRow::Gone);
                        }
                    }
                }
            }
        }
        if let Some(usage) = usage {
            self.usage.push((tenant.clone(), usage));
        }
        if let Some(accounts) = accounts {
            self.accounts.insert(tenant, accounts);
        }
    }

    /// How many entries came since the last answer.
    pub(crate) fn len(&self) -> usize {
        self.entries
    }

    /// Whether somebody waits for it.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.accounts.is_empty() && self.holds.is_empty() && self.usage.is_empty() && self.entries == 0
    }

    /// Writes everything, within the transaction that is open.
    pub(crate) fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        if !self.holds.is_empty() {
            let mut add = connection.prepare_cached(sql::HOLD_ADD)?;
            let mut delete = connection.prepare_cached(sql::HOLD_DELETE)?;
            for (tenant, rows) in &self.holds {
                for (request, row) in rows {
                    if !matches!(row, HoldRow::New(_)) {
                        delete.execute(params![Col(tenant), Col(request)])?;
                    }
                    if let HoldRow::New(hold) | HoldRow::Renewed(hold) = row {
                        add.execute(params![
                            Col(tenant),
                            Col(request),
                            Col(hold.tokens),
                            Col(hold.expires_at),
                            Col(hold.day),
                            Col(hold.month)
                        ])?;
                    }
                }
            }
        }
        if !self.accounts.is_empty() {
            let mut put = connection.prepare_cached(sql::LEDGER_PUT)?;
            for (tenant, (day, month)) in &self.accounts {
                put.execute(params![
                    Col(tenant),
                    Col(day.start),
                    Col(day.settled),
                    Col(day.overrun),
                    Col(month.start),
                    Col(month.settled),
                    Col(month.overrun)
                ])?;
            }
        }
        if !self.usage.is_empty() {
            let mut add = connection.prepare_cached(sql::USAGE_ADD)?;
            for (tenant, record) in &self.usage {
                telemetry::add(&mut add, tenant, record)?;
            }
        }
        Ok(())
    }

    /// Answers those who wait. What was written is forgotten.
    pub(crate) fn answer(&mut self, written: Result<(), &StoreError>) {
        self.entries = 0;
        for waiting in self.waiting.drain(..) {
            // Who has gone away needs no answer.
            drop(waiting.send(written.map_err(StoreError::again)));
        }
        if written.is_ok() {
            self.accounts.clear();
            self.holds.clear();
            self.usage.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use enigma_core::Timestamp;
    use uuid::Uuid;

    fn request(number: u128) -> RequestId {
        RequestId::new(Uuid::from_u128(number))
    }

    fn entry(changes: Vec<HoldChange>) -> Entry {
        Entry { tenant: TenantId::new("acme").unwrap(), changes, accounts: None, usage: None, reply: None }
    }

    fn rows(batch: &Batch) -> Vec<(u128, bool)> {
        let mut rows: Vec<_> = batch
            .holds
            .values()
            .flatten()
            .map(|(request, row)| (request.uuid().as_u128(), matches!(row, HoldRow::New(_))))
            .collect();
        rows.sort_unstable();
        rows
    }

    #[test]
    fn a_hold_that_the_disk_never_saw_leaves_no_trace_and_one_that_it_saw_is_taken_off() {
        let at = Timestamp::from_millis(0);
        let hold = Hold { tokens: 1, expires_at: at, day: at, month: at };
        let mut batch = Batch::default();
        batch.add(entry(vec![HoldChange::Made(request(1), hold), HoldChange::Made(request(2), hold)]));
        batch.add(entry(vec![HoldChange::Ended(request(1)), HoldChange::Ended(request(3))]));
        assert_eq!(rows(&batch), [(2, true), (3, false)]);
        // What could not be written is not known to the disk afterwards either.
        batch.answer(Err(&StoreError::Busy));
        batch.add(entry(vec![HoldChange::Ended(request(2))]));
        assert_eq!(rows(&batch), [(3, false)]);
        batch.add(entry(vec![HoldChange::Made(request(3), hold)]));
        assert_eq!(rows(&batch), [(3, false)], "the disk has an older one");
        batch.add(entry(vec![HoldChange::Ended(request(3))]));
        assert_eq!(rows(&batch), [(3, false)]);
        batch.answer(Ok(()));
        assert!(batch.is_empty());
        batch.add(entry(vec![HoldChange::Ended(request(2))]));
        assert_eq!(rows(&batch), [(2, false)]);
    }
}
