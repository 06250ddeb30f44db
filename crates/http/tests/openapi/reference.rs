//! The page `docs/guides/api-reference.md`.

use std::collections::BTreeSet;

use enigma_http::{ErrorCode, ROUTES};

const PAGE: &str = include_str!("../../../../docs/guides/api-reference.md");

#[test]
fn its_headings_are_the_routes() {
    let headings = PAGE.lines().filter(|line| line.starts_with('#'));
    let named: Vec<_> = headings
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter_map(|code| code.split_once(' '))
        .filter(|(_, path)| path.starts_with('/'))
        .collect();
    assert_eq!(named.len(), ROUTES.len(), "a route has two headings");
    assert_eq!(named.iter().collect::<BTreeSet<_>>(), ROUTES.iter().collect());
}

#[test]
fn its_table_has_every_error_code_with_its_status_and_no_other() {
    let cells = |line: &'static str| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>();
    let table: Vec<(&str, &str)> = PAGE
        .lines()
        .filter(|line| line.starts_with('|'))
        .map(cells)
        .filter(|cells| cells[0].parse::<u16>().is_ok() && cells.len() == 3)
        .map(|cells| (cells[1].trim_matches('`'), cells[0]))
        .collect();
    let statuses: Vec<_> = ErrorCode::ALL.iter().map(|code| code.status()).collect();
    let known: Vec<_> =
        ErrorCode::ALL.iter().zip(&statuses).map(|(code, status)| (code.as_str(), status.as_str())).collect();
    assert_eq!(table, known);
}
