//! Which model answers a request (ADR-004).

use thiserror::Error;

use crate::id::ModelId;
use crate::tenant::Tenant;

/// The models that the deployment prescribes for all tenants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelOverrides {
    /// `MODEL_ID`.
    pub model: Option<ModelId>,
    /// `FALLBACK_MODEL_ID`.
    pub fallback: Option<ModelId>,
}

/// The models to try, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelPlan {
    primary: ModelId,
    fallback: Option<ModelId>,
}

impl ModelPlan {
    /// The model that is asked first.
    pub fn primary(&self) -> &ModelId {
        &self.primary
    }

    /// The model that is asked when the first one cannot answer.
    pub fn fallback(&self) -> Option<&ModelId> {
        self.fallback.as_ref()
    }

    /// Both, in order.
    pub fn models(&self) -> impl Iterator<Item = &ModelId> {
        std::iter::once(&self.primary).chain(self.fallback.as_ref())
    }
}

/// The model that precedence chose is not on the tenant's allow-list.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("model {0} is not on the allow-list")]
pub struct ModelNotAllowed(pub ModelId);

/// Chooses the models for a request: the request's ▸ the deployment's ▸ the tenant's. The fallback is the deployment's ▸ the
/// tenant's, left out when it is the primary, or not allowed.
///
/// # Errors
/// [`ModelNotAllowed`] when the tenant keeps an allow-list and the primary is not on it.
///
/// ```
/// use enigma_core::model::{ModelOverrides, select_models};
/// use enigma_core::tenant::Tenant;
///
/// let tenant = Tenant::from_json(r#"{ "tenantId": "acme", "aiModels": { "chat": "small" } }"#)?;
/// let asked = "large".parse()?;
/// let plan = select_models(Some(&asked), &ModelOverrides::default(), &tenant)?;
/// assert_eq!(plan.primary().as_str(), "large");
/// assert_eq!(plan.fallback().map(|m| m.as_str()), Some("small"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn select_models(
    requested: Option<&ModelId>,
    overrides: &ModelOverrides,
    tenant: &Tenant,
) -> Result<ModelPlan, ModelNotAllowed> {
    let primary = requested.or(overrides.model.as_ref()).unwrap_or_else(|| tenant.chat_model());
    if !tenant.allows_model(primary) {
        return Err(ModelNotAllowed(primary.clone()));
    }
    let fallback = overrides.fallback.as_ref().unwrap_or_else(|| tenant.chat_model());
    let fallback = (fallback != primary && tenant.allows_model(fallback)).then(|| fallback.clone());
    Ok(ModelPlan { primary: primary.clone(), fallback })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn model(name: &str) -> ModelId {
        ModelId::new(name).unwrap()
    }

    fn tenant(chat: &str, allowed: Option<&[&str]>) -> Tenant {
        let json = serde_json::json!({
            "tenantId": "acme",
            "aiModels": { "chat": chat },
            "featureFlags": { "modelAllowList": allowed.is_some() },
            "allowedModels": allowed.unwrap_or_default(),
        });
        Tenant::from_json(&json.to_string()).unwrap()
    }

    #[test]
    fn an_allow_list_that_is_not_switched_on_allows_everything() {
        let json = r#"{ "tenantId": "a", "aiModels": { "chat": "m" }, "allowedModels": ["m"] }"#;
        let tenant = Tenant::from_json(json).unwrap();
        assert!(select_models(Some(&model("other")), &ModelOverrides::default(), &tenant).is_ok());
    }

    proptest! {
        #[test]
        fn precedence_and_allow_list_hold(
            requested in proptest::option::of("[abcd]"),
            environment in proptest::option::of("[abcd]"),
            environment_fallback in proptest::option::of("[abcd]"),
            own in "[abcd]",
            allowed in proptest::option::of(proptest::collection::vec("[abcd]", 0..4)),
        ) {
            let names: Option<Vec<&str>> = allowed.as_ref().map(|list| list.iter().map(String::as_str).collect());
            let tenant = tenant(&own, names.as_deref());
            let overrides = ModelOverrides {
                model: environment.as_deref().map(model),
                fallback: environment_fallback.as_deref().map(model),
            };
            let plan = select_models(requested.as_deref().map(model).as_ref(), &overrides, &tenant);

            // The oracle: ADR-004's table, written out.
            let expected = requested.clone().or(environment).unwrap_or(own.clone());
            let permitted = |m: &str| allowed.as_ref().is_none_or(|list| list.iter().any(|a| a == m));
            if permitted(&expected) {
                let plan = plan.unwrap();
                prop_assert_eq!(plan.primary().as_str(), &expected);
                let spare = environment_fallback.unwrap_or(own);
                let spare = (spare != expected && permitted(&spare)).then_some(spare);
                prop_assert_eq!(plan.fallback().map(|m| m.as_str().to_owned()), spare);
                prop_assert!(plan.models().all(|m| permitted(m.as_str())));
            } else {
                prop_assert_eq!(plan, Err(ModelNotAllowed(model(&expected))));
            }
        }
    }
}
