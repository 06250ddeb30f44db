//! Tenants of cases. Each case has its own, so that no case disturbs another, whatever host they share.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A tenant's file.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Its id.
    pub id: String,
    /// What stands in `tenant.config.json`.
    pub json: Value,
}

/// The key that [`Tenant::new`] gives a tenant.
pub fn key_of(tenant: &str) -> String {
    format!("enigma-test-key-of-{tenant}")
}

/// A key as files hold it.
pub fn hash(key: &str) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(key)))
}

impl Tenant {
    /// A tenant with one key, limits that no case reaches by accident, and the model `scripted`.
    pub fn new(id: &str) -> Self {
        let json = json!({
            "tenantId": id,
            "aiModels": { "chat": "scripted" },
            "rateLimit": { "perMinute": 100_000 },
            "apiKeys": [hash(&key_of(id))],
        });
        Self { id: id.to_owned(), json }
    }

    /// Sets a field.
    #[must_use]
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.json[field] = value;
        self
    }

    /// Has a chat model of its own, so that what goes wrong with it opens nobody else's breaker; and no fallback, as that is
    /// the tenant's model too.
    #[must_use]
    pub fn model(mut self, model: &str) -> Self {
        self.json["aiModels"]["chat"] = model.into();
        self
    }

    /// Embeds its documents by `embed-64`, asks models no side questions, and has a chat model of its own.
    #[must_use]
    pub fn searches(self) -> Self {
        let chat = format!("{}-model", self.id);
        self.with("aiModels", json!({ "chat": chat, "embeddings": "embed-64" }))
            .with("featureFlags", json!({ "query_rewriting": false, "follow_ups": false }))
    }

    /// Speaks as a model of its own, so that what goes wrong with it opens nobody else's breaker. What it is called is what Workers AI
    /// calls its own.
    #[must_use]
    pub fn speaks(self) -> Self {
        let speech = format!("@cf/deepgram/aura-1-{}", self.id);
        self.with("aiModels", json!({ "chat": "scripted", "tts": speech }))
            .with("featureFlags", json!({ "tts_enabled": true }))
    }

    /// May use these models and no other, so that nothing else steps in for one that fails.
    #[must_use]
    pub fn only_models(self, models: &[&str]) -> Self {
        let unused = format!("{}-unused", self.id);
        self.model(&unused).with("featureFlags", json!({ "modelAllowList": true })).with("allowedModels", json!(models))
    }

    /// Demands no credentials, and has no key.
    #[must_use]
    pub fn open(self) -> Self {
        self.with("auth", json!({ "mode": "open" })).with("apiKeys", json!([]))
    }
}
