//! The ledgers in use, in memory, where they are decided. What changes goes to the writer in the order in which it was decided.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use enigma_core::TenantId;
use enigma_core::ledger::{Account, Hold, Ledger};
use enigma_core::usage::UsageRecord;
use rusqlite::{Connection, OptionalExtension, Row};
use tokio::sync::mpsc::Permit;
use tokio::sync::oneshot;

use crate::batch::Entry;
use crate::columns::{Col, get};
use crate::error::StoreError;
use crate::sql;
use crate::writer::Message;

/// One ledger for each tenant that has asked, with the holds of its running requests.
#[derive(Debug, Default)]
pub(crate) struct Ledgers {
    loaded: Mutex<HashMap<TenantId, Ledger>>,
}

/// When a change is on its way to the disk.
pub(crate) type Written = oneshot::Receiver<Result<(), StoreError>>;

/// What is written of a change beside the ledger, and whether somebody waits for it.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    pub(crate) usage: Option<UsageRecord>,
    pub(crate) is_awaited: bool,
}

impl Ledgers {
    /// Whether the ledger of `tenant` is in memory.
    pub(crate) fn has(&self, tenant: &TenantId) -> bool {
        self.lock().contains_key(tenant)
    }

    /// Takes in what was read of a ledger. Of two that were read at once the first is the one that counts: it may have changed
    /// already, and the file knows nothing that it does not.
    pub(crate) fn insert(&self, tenant: &TenantId, ledger: Ledger) {
        self.lock().entry(tenant.clone()).or_insert(ledger);
    }

    /// Does `operation` with the ledger of `tenant`, and sends what it changed to the writer. Both happen under one lock, so
    /// that changes are written in their order; neither waits for anything.
    ///
    /// # Errors
    /// [`StoreError::Panicked`] when an operation has panicked before: its ledger may be half changed.
    pub(crate) fn change<T>(
        &self,
        tenant: &TenantId,
        place: Permit<'_, Message>,
        operation: impl FnOnce(&mut Ledger) -> (T, Beside),
    ) -> Result<(T, Option<Written>), StoreError> {
        let mut loaded = self.loaded.lock().map_err(|_| StoreError::Panicked)?;
        let ledger = loaded.get_mut(tenant).ok_or(StoreError::Closed)?;
        let before = (*ledger.day(), *ledger.month());
        let (outcome, Beside { usage, is_awaited }) = operation(ledger);
        let after = (*ledger.day(), *ledger.month());
        let changes = ledger.take_changes();
        let accounts = (before != after).then_some(after);
        if changes.is_empty() && accounts.is_none() && usage.is_none() {
            return Ok((outcome, None));
        }
        let (reply, written) = if is_awaited {
            let (reply, written) = oneshot::channel();
            (Some(reply), Some(written))
        } else {
            (None, None)
        };
        let entry = Entry { tenant: tenant.clone(), changes, accounts, usage, reply };
        place.send(Message::Entry(Box::new(entry)));
        Ok((outcome, written))
    }

    /// For those who only look or insert whole ledgers: a panic elsewhere cannot have spoilt the map itself.
    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, Ledger>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the ledger of `tenant`.
pub(crate) fn load(connection: &Connection, tenant: &TenantId) -> Result<Ledger, StoreError> {
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
