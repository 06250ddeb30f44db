//! What only a deployment, or many tenants together, can get wrong.

use enigma_core::tenant::{AuthMode, TenantIndex};

use super::{Problem, Rules, TenantFile};

/// What the deployment cannot accept of a tenant.
pub(super) fn tenant(file: &TenantFile, rules: Rules<'_>) -> Vec<Problem> {
    let tenant = &file.tenant;
    let mut problems = Vec::new();
    let mut refuse = |field: &str, reason: String| problems.push(Problem::new(&file.path, field, reason));
    match tenant.auth_mode() {
        AuthMode::Open if rules.production && !tenant.allows_open_in_production() => {
            refuse("auth.mode", "open is refused in production unless auth.allowOpenInProduction is true".to_owned());
        }
        AuthMode::Jwt => refuse("auth.mode", "jwt is not available natively yet".to_owned()),
        AuthMode::Open | AuthMode::ApiKey => {}
    }
    if let Some(serves) = rules.serves {
        if !serves(tenant, tenant.chat_model()) {
            refuse("aiModels.chat", format!("nobody serves model {}", tenant.chat_model()));
        }
        for model in tenant.allowed_models().into_iter().flatten().filter(|model| !serves(tenant, model)) {
            refuse("allowedModels", format!("nobody serves model {model}"));
        }
    }
    problems
}

/// What is odd about a tenant, and may yet be meant.
pub(super) fn oddities(file: &TenantFile) -> Vec<Problem> {
    let tenant = &file.tenant;
    let mut oddities = Vec::new();
    let mut note = |field: &str, reason: String| oddities.push(Problem::new(&file.path, field, reason));
    if file.directory != tenant.id().as_str() {
        note("tenantId", format!("is {}, but the directory is called {}", tenant.id(), file.directory));
    }
    let model = tenant.chat_model();
    if !tenant.allows_model(model) {
        note(
            "aiModels.chat",
            format!("model {model} is not in allowedModels, so only requests that name another are answered"),
        );
    }
    if tenant.auth_mode() == AuthMode::ApiKey && tenant.keys().is_empty() {
        note("apiKeys", "there is no key, so nobody gets in".to_owned());
    }
    oddities
}

/// Indexes the tenants. One that claims what an earlier one has is left out, so that the others' claims can still be compared.
pub(super) fn index(mut files: Vec<TenantFile>) -> (TenantIndex, Vec<Problem>) {
    let mut problems = Vec::new();
    loop {
        let conflict = match TenantIndex::new(files.iter().map(|file| file.tenant.clone())) {
            Ok(index) => return (index, problems),
            Err(conflict) => conflict,
        };
        // The index takes them in order: of two with the same id it is the second that clashes, of any other clash the first
        // that has the id.
        let mut named =
            files.iter().enumerate().filter(|(_, file)| *file.tenant.id() == conflict.tenant).map(|(n, _)| n);
        let position = if conflict.field == "tenantId" { named.nth(1) } else { named.next() };
        let file = files.remove(position.expect("a conflict names one of the tenants"));
        problems.push(Problem::new(&file.path, conflict.field, conflict.reason));
    }
}
