//! Who makes way in a full line.

use std::collections::HashMap;

use enigma_core::TenantId;

/// Who makes way for a newcomer of this tenant: of those who wait, the newest of the tenant that holds most places, unless the
/// newcomer's holds as many. So no tenant's crowd keeps the others out. What has begun is never cut for it.
///
/// A tenant that holds more, but only places among the served, has nobody who could make way.
pub(crate) fn makes_way<'a>(
    newcomer: &TenantId,
    served: impl Iterator<Item = &'a TenantId>,
    waiting: impl Iterator<Item = &'a TenantId> + Clone,
) -> Option<usize> {
    let mut places: HashMap<&TenantId, usize> = HashMap::new();
    for tenant in served.chain(waiting.clone()) {
        *places.entry(tenant).or_default() += 1;
    }
    let places_of = |tenant: &TenantId| places.get(tenant).copied().unwrap_or(0);
    // The last of equals, and so the newest.
    let (index, most) = waiting.map(places_of).enumerate().max_by_key(|(_, places)| *places)?;
    (places_of(newcomer) < most).then_some(index)
}
