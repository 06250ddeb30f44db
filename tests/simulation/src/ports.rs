//! The ports of a simulated process: the real adapters in memory, onlookers that hold them to their promises, and faults.

pub(crate) mod corpus;
pub(crate) mod facades;
pub(crate) mod faulty;
pub(crate) mod ledger;
pub(crate) mod limiter;
pub(crate) mod sessions;
pub(crate) mod telemetry;
