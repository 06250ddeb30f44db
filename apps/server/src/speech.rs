//! The speech engine of this machine, if it has one.

use std::error::Error;

use enigma_core::model::AudioFormat;
use enigma_core::tenant::TenantIndex;
use enigma_espeak::{DetectError, Espeak};

use crate::config::EspeakConfig;

/// Looks for the engine. A machine without one serves everything else: whoever asks for speech is told.
pub(crate) async fn detect(config: &EspeakConfig, tenants: &TenantIndex) -> Option<Espeak> {
    match Espeak::detect(&config.options).await {
        Ok(engine) => {
            let formats = engine.formats().into_iter().map(AudioFormat::as_str).collect::<Vec<_>>().join(", ");
            tracing::info!(model = %config.model, formats, "the speech engine of this machine is ready");
            Some(engine)
        }
        // Most servers have no use for one.
        Err(error @ DetectError::NotInstalled(_)) => {
            let is_wanted = tenants.tenants().any(|tenant| tenant.speech_model() == Some(&config.model));
            if is_wanted {
                tracing::warn!(model = %config.model, %error, "this machine has no speech engine");
            } else {
                tracing::debug!(model = %config.model, %error, "this machine has no speech engine");
            }
            None
        }
        Err(error) => {
            tracing::warn!(model = %config.model, error = &error as &dyn Error, "the speech engine cannot be used");
            None
        }
    }
}
