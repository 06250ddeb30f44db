//! An end to every wait for the platform: a call that hangs never ends by itself.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use enigma_core::PortError;
use futures_util::future::{Either, select};
use worker::send::SendFuture;

use crate::runtime::sleep;

/// What `work` says, or [`PortError::Timeout`] of `port` when it has not said it after `limit`.
///
/// The whole of `work` may touch JavaScript: it lives and dies in here, so that the future is [`Send`] as ports want it.
pub(crate) fn deadline<T>(
    port: &'static str,
    limit: Duration,
    work: impl Future<Output = Result<T, PortError>>,
) -> impl Future<Output = Result<T, PortError>> + Send {
    SendFuture::new(async move { before(port, work, sleep(limit)).await })
}

/// Of an answer and an end that come together, the answer counts.
async fn before<T>(
    port: &'static str,
    work: impl Future<Output = Result<T, PortError>>,
    end: impl Future<Output = ()>,
) -> Result<T, PortError> {
    match select(pin!(work), pin!(end)).await {
        Either::Left((said, _)) => said,
        Either::Right(((), _)) => Err(PortError::Timeout { port }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::future::{pending, ready};

    #[test]
    fn who_does_not_answer_is_not_waited_for() {
        let never = before::<()>("p", pending(), ready(())).now_or_never();
        assert!(matches!(never, Some(Err(PortError::Timeout { port: "p" }))));
        assert!(before::<()>("p", pending(), pending()).now_or_never().is_none());
    }

    #[test]
    fn an_answer_counts_even_when_it_comes_at_the_last_moment() {
        assert!(matches!(before("p", ready(Ok(1)), ready(())).now_or_never(), Some(Ok(1))));
        let failed = before::<()>("p", ready(Err(PortError::unavailable("p", "no"))), pending()).now_or_never();
        assert!(matches!(failed, Some(Err(PortError::Unavailable { .. }))));
    }
}
