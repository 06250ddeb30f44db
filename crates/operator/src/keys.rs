//! New API keys.

use enigma_core::tenant::{KeyHash, Scope};
use serde_json::{Value, json};
use thiserror::Error;

/// The operating system gave no random bytes.
#[derive(Debug, Error)]
#[error("the operating system gives no random numbers: {0}")]
pub struct NoRandomness(getrandom::Error);

/// A key that was just made. It is shown to its owner once; only its hash is kept.
pub struct NewKey {
    secret: String,
}

impl NewKey {
    /// Makes a key of 256 random bits that begins with `prefix`, by which a leaked one is recognised.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn generate(prefix: &str) -> Result<Self, NoRandomness> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(NoRandomness)?;
        Ok(Self { secret: format!("{prefix}{}", hex::encode(bytes)) })
    }

    /// The key itself.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// What the tenant's file keeps of it.
    pub fn hash(&self) -> KeyHash {
        KeyHash::of(&self.secret)
    }

    /// Its entry in the `apiKeys` of a tenant's file. Without scopes it is good for everything but `admin`.
    pub fn entry(&self, id: Option<&str>, scopes: &[Scope], expires_at: Option<&str>) -> Value {
        let mut entry = json!({ "hash": self.hash().to_string() });
        let mut set = |field: &str, value: Option<Value>| {
            if let Some(value) = value {
                entry[field] = value;
            }
        };
        set("id", id.map(Value::from));
        set("scopes", (!scopes.is_empty()).then(|| json!(scopes)));
        set("expiresAt", expires_at.map(Value::from));
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use enigma_core::tenant::Tenant;

    #[test]
    fn a_new_key_opens_the_tenant_whose_file_holds_its_entry() {
        let key = NewKey::generate("enigma_").unwrap();
        assert!(key.secret().starts_with("enigma_") && key.secret().len() == 7 + 64);
        let entry = key.entry(Some("ci"), &[Scope::Chat, Scope::Admin], Some("2030-01-01T00:00:00Z"));
        assert!(!entry.to_string().contains(key.secret()));

        let file = json!({ "tenantId": "acme", "aiModels": { "chat": "m" }, "apiKeys": [entry] });
        let tenant = Tenant::from_json(&file.to_string()).unwrap();
        let kept = &tenant.keys()[0];
        assert_eq!((kept.hash, kept.id.as_str()), (KeyHash::of(key.secret()), "ci"));
        assert!(kept.scopes.contains(Scope::Admin) && !kept.scopes.contains(Scope::Tools));
        assert!(kept.expires_at.is_some());
    }

    #[test]
    fn no_two_keys_are_the_same() {
        assert_ne!(NewKey::generate("").unwrap().secret(), NewKey::generate("").unwrap().secret());
    }
}
