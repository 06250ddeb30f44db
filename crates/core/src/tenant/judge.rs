//! What only a deployment, or many tenants together, can get wrong. Every host judges its tenants with this, wherever it has
//! them from.

use std::fmt;

use super::config::{AuthMode, Tenant};
use super::directory::TenantIndex;
use crate::id::{ModelId, TenantId};

/// What a model is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelUse {
    /// To answer.
    Chat,
    /// To turn texts into vectors.
    Embeddings,
    /// To speak.
    Speech,
}

/// Whether somebody serves a model to a tenant for this.
pub type Serves<'a> = &'a dyn Fn(&Tenant, &ModelId, ModelUse) -> bool;

/// What a deployment demands of its tenants.
#[derive(Clone, Copy)]
pub struct DeploymentRules<'a> {
    /// Whether it is production, where nobody gets in without credentials unless the tenant's file says so twice.
    pub production: bool,
    /// Which models are served; `None` where that is not known, and not asked.
    pub serves: Option<Serves<'a>>,
    /// Whose tokens can be checked.
    pub tokens: TokenSupport,
}

/// Whose tokens a deployment can check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TokenSupport {
    /// Nobody's: it has no verifier.
    #[default]
    None,
    /// Those of tenants whose keys are at a URL or in a file.
    UrlsAndFiles,
}

/// Something about a tenant that a deployment cannot accept, or that is odd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantProblem {
    /// The tenant.
    pub tenant: TenantId,
    /// Its field.
    pub field: String,
    /// Why it cannot be accepted. Never a key.
    pub reason: String,
}

impl fmt::Display for TenantProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tenant, field, reason } = self;
        write!(f, "{tenant}: {field}: {reason}")
    }
}

/// Whether an environment of this name is production.
pub fn is_production(environment: &str) -> bool {
    ["production", "prod", "prd"].iter().any(|name| name.eq_ignore_ascii_case(environment))
}

/// What a deployment of such rules cannot accept of `tenant`.
pub fn judge(tenant: &Tenant, rules: DeploymentRules<'_>) -> Vec<TenantProblem> {
    let mut problems = Vec::new();
    let mut refuse = |field: &str, reason: String| problems.push(problem(tenant, field, reason));
    match tenant.auth_mode() {
        AuthMode::Open if rules.production && !tenant.allows_open_in_production() => {
            refuse("auth.mode", "open is refused in production unless auth.allowOpenInProduction is true".to_owned());
        }
        AuthMode::Jwt if rules.tokens == TokenSupport::None => {
            refuse("auth.mode", "jwt is not available on this host".to_owned());
        }
        AuthMode::Jwt if rules.production && tenant.token_policy().is_some_and(|it| it.keys.is_unprotected()) => {
            refuse("auth.jwks.url", "must be https in production".to_owned());
        }
        AuthMode::Open | AuthMode::ApiKey | AuthMode::Jwt => {}
    }
    if let Some(serves) = rules.serves {
        if !serves(tenant, tenant.chat_model(), ModelUse::Chat) {
            refuse("aiModels.chat", format!("nobody serves model {}", tenant.chat_model()));
        }
        if let Some(model) = tenant.embedding_model().filter(|model| !serves(tenant, model, ModelUse::Embeddings)) {
            refuse("aiModels.embeddings", format!("nobody embeds with model {model}"));
        }
        if let Some(model) = tenant.speech_model().filter(|model| !serves(tenant, model, ModelUse::Speech)) {
            refuse("aiModels.tts", format!("nobody speaks as model {model}"));
        }
        let is_served = |model: &ModelId| {
            [ModelUse::Chat, ModelUse::Embeddings, ModelUse::Speech].iter().any(|it| serves(tenant, model, *it))
        };
        for model in tenant.allowed_models().into_iter().flatten().filter(|model| !is_served(model)) {
            refuse("allowedModels", format!("nobody serves model {model}"));
        }
    }
    problems
}

/// What is odd about a tenant, and may yet be meant.
pub fn oddities(tenant: &Tenant) -> Vec<TenantProblem> {
    let mut oddities = Vec::new();
    let model = tenant.chat_model();
    if !tenant.allows_model(model) {
        let reason = format!("model {model} is not in allowedModels, so only requests that name another are answered");
        oddities.push(problem(tenant, "aiModels.chat", reason));
    }
    if tenant.auth_mode() == AuthMode::ApiKey && tenant.keys().is_empty() {
        oddities.push(problem(tenant, "apiKeys", "there is no key, so nobody gets in".to_owned()));
    }
    if tenant.auth_mode() == AuthMode::Jwt && !tenant.keys().is_empty() {
        oddities.push(problem(tenant, "apiKeys", "mode jwt lets nobody in by a key".to_owned()));
    }
    if tenant.token_policy().is_some_and(|policy| policy.keys.is_unprotected()) {
        let reason = "keys that come over http can be replaced on their way; production refuses it".to_owned();
        oddities.push(problem(tenant, "auth.jwks.url", reason));
    }
    oddities
}

/// Indexes `tenants`. One that claims what an earlier one has is left out, so that the others' claims can still be compared;
/// what it claims is told with its place among `tenants`.
pub fn index_all(tenants: &[Tenant]) -> (TenantIndex, Vec<(usize, TenantProblem)>) {
    let mut kept: Vec<(usize, &Tenant)> = tenants.iter().enumerate().collect();
    let mut problems = Vec::new();
    loop {
        let conflict = match TenantIndex::new(kept.iter().map(|(_, tenant)| (*tenant).clone())) {
            Ok(index) => return (index, problems),
            Err(conflict) => conflict,
        };
        // The index takes them in order: of two with the same id it is the second that clashes, of any other clash the first
        // that has the id.
        let mut named =
            kept.iter().enumerate().filter(|(_, (_, tenant))| *tenant.id() == conflict.tenant).map(|(n, _)| n);
        let position = if conflict.field == "tenantId" { named.nth(1) } else { named.next() };
        let (place, tenant) = kept.remove(position.expect("a conflict names one of the tenants"));
        problems.push((place, problem(tenant, conflict.field, conflict.reason)));
    }
}

fn problem(tenant: &Tenant, field: &str, reason: String) -> TenantProblem {
    TenantProblem { tenant: tenant.id().clone(), field: field.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn tenant(id: &str, field: &str, value: Value) -> Tenant {
        let mut json = json!({ "tenantId": id, "aiModels": { "chat": "m" } });
        json[field] = value;
        Tenant::from_json(&json.to_string()).unwrap()
    }

    fn rules(production: bool) -> DeploymentRules<'static> {
        DeploymentRules { production, serves: None, tokens: TokenSupport::UrlsAndFiles }
    }

    #[test]
    fn production_has_three_names() {
        for name in ["production", "prod", "prd", "PRD"] {
            assert!(is_production(name), "{name}");
        }
        for name in ["", "development", "production-like", "stg"] {
            assert!(!is_production(name), "{name}");
        }
    }

    #[test]
    fn an_open_tenant_is_refused_in_production_unless_it_says_so_twice() {
        let open = tenant("a", "auth", json!({ "mode": "open" }));
        let meant = tenant("a", "auth", json!({ "mode": "open", "allowOpenInProduction": true }));
        let told = |tenant: &Tenant, production| judge(tenant, rules(production)).len();
        assert_eq!((told(&open, true), told(&open, false), told(&meant, true)), (1, 0, 0));
    }

    fn jwt(url: &str) -> Tenant {
        let auth = json!({ "mode": "jwt", "issuer": "i", "audience": "a", "jwks": { "url": url } });
        tenant("a", "auth", auth)
    }

    fn told(tenant: &Tenant, rules: DeploymentRules<'_>) -> Vec<String> {
        judge(tenant, rules).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_nobody_can_do_is_refused() {
        let nobody = DeploymentRules { serves: Some(&|_, _, _| false), tokens: TokenSupport::None, ..rules(false) };
        let told = told(&jwt("https://keys.example/"), nobody);
        assert_eq!(
            told,
            ["a: auth.mode: jwt is not available on this host", "a: aiModels.chat: nobody serves model m"]
        );
    }

    #[test]
    fn a_model_is_served_for_what_it_is_named_for() {
        let mut json =
            json!({ "tenantId": "a", "aiModels": { "chat": "talks", "embeddings": "places", "tts": "speaks" } });
        json["featureFlags"] = json!({ "modelAllowList": true });
        json["allowedModels"] = json!(["talks", "places", "speaks"]);
        let tenant = |json: &Value| Tenant::from_json(&json.to_string()).unwrap();
        let serves = |_: &Tenant, model: &ModelId, purpose| match purpose {
            ModelUse::Chat => model.as_str() == "talks",
            ModelUse::Embeddings => model.as_str() == "places",
            ModelUse::Speech => model.as_str() == "speaks",
        };
        let rules = DeploymentRules { serves: Some(&serves), ..rules(false) };
        assert_eq!(told(&tenant(&json), rules), [""; 0]);
        json["aiModels"] = json!({ "chat": "places", "embeddings": "speaks", "tts": "talks" });
        let expected = [
            "a: aiModels.chat: nobody serves model places",
            "a: aiModels.embeddings: nobody embeds with model speaks",
            "a: aiModels.tts: nobody speaks as model talks",
        ];
        assert_eq!(told(&tenant(&json), rules), expected);
    }

    #[test]
    fn keys_that_anybody_could_replace_on_their_way_are_refused_in_production() {
        let (plain, protected) = (jwt("http://keys.example/"), jwt("https://keys.example/"));
        assert_eq!(told(&plain, rules(true)), ["a: auth.jwks.url: must be https in production"]);
        assert_eq!(told(&plain, rules(false)), [""; 0]);
        assert_eq!(told(&protected, rules(true)), [""; 0]);
        assert_eq!((oddities(&plain).len(), oddities(&protected).len()), (1, 0));
    }

    #[test]
    fn a_key_that_opens_nothing_is_odd() {
        let mut json = json!({ "tenantId": "a", "aiModels": { "chat": "m" } });
        json["auth"] = json!({ "mode": "jwt", "issuer": "i", "audience": "a", "jwks": { "file": "f" } });
        json["apiKeys"] = json!([crate::tenant::KeyHash::of("k").to_string()]);
        let told = oddities(&Tenant::from_json(&json.to_string()).unwrap());
        assert_eq!(told[0].to_string(), "a: apiKeys: mode jwt lets nobody in by a key");
    }

    #[test]
    fn every_clash_is_told_with_its_place() {
        let hosts = |id, host| tenant(id, "allowedHosts", json!([host]));
        let (index, problems) =
            index_all(&[hosts("a", "x"), hosts("b", "x"), hosts("c", "y"), hosts("a", "z"), hosts("d", "y")]);
        let told: Vec<_> = problems.iter().map(|(place, problem)| (*place, problem.field.as_str())).collect();
        assert_eq!(told, [(1, "allowedHosts"), (3, "tenantId"), (4, "allowedHosts")]);
        assert_eq!(index.tenants().count(), 2);
    }
}
