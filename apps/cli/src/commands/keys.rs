//! `enigma keys`

use std::io::Write;

use enigma_core::KeyId;
use enigma_core::tenant::Scope;
use enigma_operator::keys::NewKey;

use super::CommandError;

/// What a key begins with.
const PREFIX: &str = "enigma_";

/// `enigma keys new`
pub(crate) fn new(
    id: Option<&KeyId>,
    scopes: &[Scope],
    expires_at: Option<&str>,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let key = NewKey::generate(PREFIX)?;
    let entry = key.entry(id.map(KeyId::as_str), scopes, expires_at);
    let entry = serde_json::to_string_pretty(&entry).expect("a tree of texts is JSON");
    writeln!(out, "The key, which is shown this once and kept nowhere:\n\n{}\n", key.secret())?;
    writeln!(out, "Its entry in \"apiKeys\" of the tenant's tenant.config.json:\n\n{entry}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use enigma_core::tenant::Tenant;

    #[test]
    fn the_entry_that_is_shown_belongs_to_the_key_that_is_shown() {
        let mut out = Vec::new();
        let id = KeyId::new("ci").unwrap();
        new(Some(&id), &[Scope::Chat], Some("2030-01-31T00:00:00Z"), &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        let key = out.lines().find(|line| line.starts_with(PREFIX)).unwrap();
        let entry = &out[out.find('{').unwrap()..];
        let file = format!(r#"{{ "tenantId": "a", "aiModels": {{ "chat": "m" }}, "apiKeys": [{entry}] }}"#);
        let tenant = Tenant::from_json(&file).unwrap();
        assert_eq!(tenant.keys()[0].hash, enigma_core::tenant::KeyHash::of(key));
        assert_eq!(tenant.keys()[0].id, id);
        assert_eq!(out.matches(key).count(), 1);
    }
}
