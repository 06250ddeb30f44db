//! The documentation hangs together: every page is in the index, every link leads somewhere, and the tenant's file that it shows
//! is one that the server takes.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use enigma_core::tenant::Tenant;
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Every page below `directory`.
fn pages(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(pages(&path));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The text outside of code blocks.
fn prose(page: &Path) -> String {
    let text = fs::read_to_string(page).unwrap();
    text.split("\n```").step_by(2).collect()
}

/// The files that a page links to.
fn links(page: &Path) -> Vec<PathBuf> {
    let text = prose(page);
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let local = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
    let directory = page.parent().unwrap();
    local.map(|target| directory.join(target.split('#').next().unwrap_or_default())).collect()
}

#[test]
fn the_index_links_every_page() {
    let docs = root().join("docs");
    let index = docs.join("README.md");
    let linked: BTreeSet<_> = links(&index).into_iter().filter_map(|path| path.canonicalize().ok()).collect();
    for page in pages(&docs).into_iter().filter(|page| *page != index) {
        assert!(linked.contains(&page), "{} is not in docs/README.md", page.display());
    }
}

#[test]
fn every_link_leads_somewhere() {
    let root = root();
    let mut all = pages(&root.join("docs"));
    all.extend(["README.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(|name| root.join(name)));
    let broken: Vec<_> = all
        .iter()
        .flat_map(|page| links(page).into_iter().map(move |target| (page, target)))
        .filter(|(_, target)| !target.exists())
        .map(|(page, target)| format!("{} links to {}", page.display(), target.display()))
        .collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn records_of_decisions_have_their_three_parts_and_follow_each_other() {
    for (number, page) in (1..).zip(pages(&root().join("docs/adrs"))) {
        let text = fs::read_to_string(&page).unwrap();
        assert!(
            page.file_name().unwrap().to_str().unwrap().starts_with(&format!("{number:04}-")),
            "{}",
            page.display()
        );
        assert!(text.starts_with(&format!("# ADR-{number:03}: ")), "{}", page.display());
        let parts: Vec<_> = text.lines().filter(|line| line.starts_with("## ")).collect();
        assert_eq!(parts, ["## Context", "## Decision", "## Consequences"], "{}", page.display());
    }
}

/// The paths of an object's members, such as `rateLimit.tenant.burst`; of a list, nothing.
fn fields(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    for (name, member) in value.as_object().into_iter().flatten() {
        let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        // The names of flags are free.
        if member.is_object() && path != "featureFlags" {
            fields(member, &path, found);
        } else {
            found.insert(path);
        }
    }
}

#[test]
fn the_guide_to_tenants_shows_and_explains_every_field() {
    let page = fs::read_to_string(root().join("docs/guides/tenants.md")).unwrap();
    let example = page.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    let tenant = Tenant::from_json(example).unwrap();
    assert_eq!(tenant.keys().len(), 2);

    let mut shown = BTreeSet::new();
    fields(&serde_json::from_str(example).unwrap(), "", &mut shown);
    let rows =
        page.lines().skip_while(|line| !line.starts_with("| `tenantId`")).take_while(|line| line.starts_with('|'));
    let explained: BTreeSet<_> = rows.map(|row| row.split('`').nth(1).unwrap().to_owned()).collect();
    assert_eq!(explained, shown);
    // One more field is one too many, so the example has all that there are only if this refusal lists no other.
    let unknown = example.replacen('{', "{ \"unknown\": 1,", 1);
    let reason = Tenant::from_json(&unknown).unwrap_err().reason;
    let expected: BTreeSet<_> = reason.split("expected one of").nth(1).unwrap().split('`').skip(1).step_by(2).collect();
    let top: BTreeSet<_> = shown.iter().map(|path| path.split('.').next().unwrap()).collect();
    assert_eq!(expected, top);
}

#[test]
fn the_guide_to_tenants_explains_every_field_of_tokens_and_another_shows_an_example() {
    let page = fs::read_to_string(root().join("docs/guides/tenants.md")).unwrap();
    let rows = page.lines().skip_while(|line| !line.starts_with("| `issuer`")).take_while(|line| line.starts_with('|'));
    let explained: BTreeSet<_> = rows.map(|row| row.split('`').nth(1).unwrap().split('.').next().unwrap()).collect();
    let unknown = r#"{ "tenantId": "a", "aiModels": { "chat": "m" }, "auth": { "unknown": 1 } }"#;
    let reason = Tenant::from_json(unknown).unwrap_err().reason;
    let known = reason.split("expected one of").nth(1).unwrap().split('`').skip(1).step_by(2);
    assert_eq!(explained, known.filter(|name| !["mode", "allowOpenInProduction"].contains(name)).collect());

    let page = fs::read_to_string(root().join("docs/guides/authentication.md")).unwrap();
    let example = page.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(Tenant::from_json(example).unwrap().token_policy().is_some());
}

#[test]
fn the_guide_to_tenants_explains_every_field_of_a_key() {
    let page = fs::read_to_string(root().join("docs/guides/tenants.md")).unwrap();
    let rows = page.lines().skip_while(|line| !line.starts_with("| `hash`")).take_while(|line| line.starts_with('|'));
    let explained: Vec<_> = rows.map(|row| row.split('`').nth(1).unwrap()).collect();
    assert_eq!(explained, ["hash", "id", "scopes", "expiresAt"]);
    for field in explained {
        // With a value of the wrong type, each of them is refused.
        let text = format!(
            r#"{{ "tenantId": "a", "aiModels": {{ "chat": "m" }}, "apiKeys": [{{ "hash": "sha256:{}", "{field}": 7 }}] }}"#,
            "0".repeat(64)
        );
        assert!(Tenant::from_json(&text).is_err(), "{field}");
    }
}

/// Every Rust source below `directory`, without what is built.
fn sources(directory: &Path, found: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !["target", "node_modules", "build"].contains(&name) {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

/// Whether `name` is a test, or a case that a list of cases runs.
fn is_test(code: &str, name: &str) -> bool {
    let definition = format!("fn {name}(");
    let mut places = code.match_indices(&definition).map(|(at, _)| &code[..at]);
    let is_run = code.contains(&format!("::{name});")) || code.contains(&format!("$run!({name});"));
    is_run
        || places
            .any(|before| before.lines().rev().take(4).any(|line| line.contains("test]") || line.contains("test(")))
}

#[test]
fn the_guide_to_security_names_tests_that_exist() {
    let page = fs::read_to_string(root().join("docs/guides/security.md")).unwrap();
    let mut code = String::new();
    for directory in ["crates", "apps", "tests"] {
        sources(&root().join(directory), &mut code);
    }
    let rows = |heading: &str| {
        let part = page.split(heading).nth(1).unwrap().split("\n## ").next().unwrap().to_owned();
        let rows: Vec<Vec<String>> = part
            .lines()
            .filter(|line| line.starts_with("| ") && !line.starts_with("| risk") && !line.starts_with("| attack"))
            .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
            .collect();
        rows
    };
    let (attacks, risks) = (rows("## Attacks that are tried"), rows("## The OWASP API Security Top 10"));
    let numbers: Vec<_> = risks.iter().map(|row| row[0].split(':').next().unwrap().to_owned()).collect();
    let expected: Vec<_> = (1..=10).map(|number| format!("API{number}")).collect();
    assert_eq!(numbers, expected);
    assert!(attacks.len() >= 10);
    for row in attacks.iter().chain(&risks) {
        let [what, _, tests] = &row[..] else { panic!("a row of {} cells: {row:?}", row.len()) };
        let tests: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "nothing proves what is said of {what}");
        for name in tests {
            assert!(is_test(&code, name), "{what}: there is no test {name}");
        }
    }
}
