//! Adapters that panic.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

use crate::port_error::PortError;

/// Asks `port`. An adapter that panics has failed; the books of its request are owed an end all the same.
pub(crate) async fn caught<T>(
    port: &'static str,
    work: impl Future<Output = Result<T, PortError>>,
) -> Result<T, PortError> {
    let done = AssertUnwindSafe(work).catch_unwind().await;
    done.unwrap_or_else(|_| Err(PortError::unavailable(port, "the adapter panicked")))
}
