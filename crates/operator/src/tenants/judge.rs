//! The core's judgement of tenants, told of the files that they come from.

use enigma_core::tenant::{Tenant, TenantIndex, TenantProblem, index_all};

use super::{Problem, Rules, TenantFile};

/// What the deployment cannot accept of a tenant.
pub(super) fn tenant(file: &TenantFile, rules: Rules<'_>) -> Vec<Problem> {
    enigma_core::tenant::judge(&file.tenant, rules).into_iter().map(|problem| of(file, problem)).collect()
}

/// What is odd about a tenant, and may yet be meant.
pub(super) fn oddities(file: &TenantFile) -> Vec<Problem> {
    let id = file.tenant.id();
    let name = (file.directory != id.as_str()).then(|| {
        Problem::new(&file.path, "tenantId", format!("is {id}, but the directory is called {}", file.directory))
    });
    let others = enigma_core::tenant::oddities(&file.tenant).into_iter().map(|oddity| of(file, oddity));
    name.into_iter().chain(others).collect()
}

/// Indexes the tenants. One that claims what an earlier one has is left out, so that the others' claims can still be compared.
pub(super) fn index(files: &[TenantFile]) -> (TenantIndex, Vec<Problem>) {
    let tenants: Vec<Tenant> = files.iter().map(|file| file.tenant.clone()).collect();
    let (index, clashes) = index_all(&tenants);
    (index, clashes.into_iter().map(|(place, clash)| of(&files[place], clash)).collect())
}

fn of(file: &TenantFile, problem: TenantProblem) -> Problem {
    Problem::new(&file.path, problem.field, problem.reason)
}
