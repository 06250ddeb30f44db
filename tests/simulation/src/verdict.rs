//! What must hold when everybody has gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use enigma_core::chat::StreamFailure;
use enigma_core::idempotency::{Begin, Fingerprint, IdempotencyKey};
use enigma_core::ports::{Clock, IdempotencyStore};
use enigma_core::usage::Ending;
use enigma_core::{RequestId, TenantId, Timestamp};
use futures_util::FutureExt;
use uuid::Uuid;

use crate::documents;
use crate::plan::{Steps, session};
use crate::ports::ledger::End;
use crate::witness::{Call, Facts, Heard, Told, number};
use crate::world::{LIFETIME, World};

/// Calls that end a reservation.
const ENDS: [Call; 3] = [Call::Settle, Call::Release, Call::Close];

/// Who only looks.
const PROBE: RequestId = RequestId::new(Uuid::from_u128(u128::MAX));

/// A lease that has ended, whatever the clock says: a look takes no key away.
const OVER: Timestamp = Timestamp::from_millis(0);

/// Judges a world in which no task is left.
pub(crate) fn judge(world: &Arc<World>) {
    let sim = &world.sim;
    sim.check(sim.sleepers() == 0, || format!("{} sleep although nobody is there", sim.sleepers()));
    {
        let facts = world.witness.facts();
        for (request, facts) in facts.iter() {
            books_of(world, request, facts);
            answer_of(world, request, facts);
        }
        keys(world, &facts);
    }
    documents::judge(world);
    free_streams(world, true);
    free_turns(world);
    // Beyond every lease.
    sim.pass(u64::try_from(LIFETIME.as_millis()).expect("it is minutes") * 3);
    world.ledger.expire_all(sim.now().saturating_add(FAR));
    free_streams(world, false);
}

/// Later than any step of the clock can have put a lease.
const FAR: Duration = Duration::from_secs(40 * 86_400);

/// What must hold at the moment at which a client has heard all there is: what the request changed has been kept, and a repeat
/// meets none of its own traces.
pub(crate) fn at_its_end(world: &World, request: &RequestId) {
    let all = world.witness.facts();
    let (sim, whose, Some(facts)) = (&world.sim, number(request), all.get(request)) else { return };
    if facts.cut || world.plan.steps == Steps::Wild {
        return;
    }
    let is_open = world.ledger.reservation(&facts.tenant, request).is_some_and(|it| it.end.is_none());
    sim.check(!is_open || facts.prevented(&ENDS), || format!("r{whose} has its end, and still holds tokens"));
    let answered = match &facts.told {
        Some(Told::Answered(heard)) if !heard.replayed => {
            let may_lack = facts.prevented(&[Call::Record, Call::Close]);
            sim.check(may_lack || facts.records.len() == 1, || format!("r{whose} is done before its record"));
            let must_be_kept = facts.session.is_some() && !heard.content.is_empty() && heard.failure.is_none();
            sim.check(!must_be_kept || !facts.turns.is_empty(), || format!("r{whose} is done before its turn is kept"));
            true
        }
        Some(Told::Refused(_)) => false,
        _ => return,
    };
    let Some((key, asks)) = &facts.key else { return };
    if facts.prevented(&[Call::KeyFinish, Call::KeyAbandon]) {
        return;
    }
    let (now, asked) = (sim.now(), Fingerprint::of(&[&asks.to_le_bytes()]));
    let found = world.keys.begin(&facts.tenant, key, &asked, PROBE, OVER, now).now_or_never();
    let is_right = match &found {
        Some(Ok(Begin::Replay(_))) => true,
        Some(Ok(Begin::First | Begin::Mismatch)) => !answered,
        // Only another one may hold it.
        Some(Ok(Begin::InProgress)) => {
            let holds =
                |other: &Facts| !other.ended || other.cut || other.prevented(&[Call::KeyFinish, Call::KeyAbandon]);
            let is_its =
                |other: &Facts| other.tenant == facts.tenant && other.key.as_ref().is_some_and(|it| it.0 == *key);
            !answered && all.iter().any(|(id, other)| id != request && is_its(other) && holds(other))
        }
        _ => false,
    };
    sim.check(is_right, || format!("r{whose} has its end, and its repeat would get {found:?}"));
}

/// Exactly one settlement and one usage record for each request that reserved.
fn books_of(world: &World, request: &RequestId, facts: &Facts) {
    let (sim, whose) = (&world.sim, number(request));
    // A client that left before its request was begun has made none.
    let never_began = !facts.ended && !facts.cut && facts.told.is_none() && facts.calls == 0;
    sim.check(facts.ended || facts.cut || never_began, || format!("r{whose} never ended"));
    let records = facts.records.len();
    sim.check(records <= 1, || format!("r{whose} has {records} usage records"));
    let reservation = world.ledger.reservation(&facts.tenant, request);
    if facts.cut {
        return;
    }
    let not_ended = facts.prevented(&ENDS);
    let Some(reservation) = reservation else {
        let is_nothing = records == 0 && facts.calls == 0;
        // What was not settled a crash may take back.
        return sim.check(is_nothing || not_ended, || format!("r{whose} has no reservation, and {records} records"));
    };
    match reservation.end {
        None => sim.check(not_ended, || format!("the reservation of r{whose} is left over")),
        Some(End::Expired) => {
            let may_expire = not_ended || world.plan.steps == Steps::Wild;
            sim.check(may_expire, || format!("the reservation of r{whose} was left to expire"));
        }
        Some(End::Released) => {
            let is_unused = facts.said.is_empty() && facts.turns.is_empty();
            sim.check(is_unused, || format!("r{whose} was answered and has not paid"));
        }
        Some(End::Settled(_)) => {}
    }
    let expected = usize::from(!facts.struck(&[Call::Reserve]));
    let may_lack = facts.prevented(&[Call::Record, Call::Close]);
    sim.check(records == expected || (may_lack && records == 0), || {
        format!("r{whose} has {records} usage records, not {expected}, with {:?}", facts.faults)
    });
    if let Some(record) = facts.records.first()
        && !facts.struck(&ENDS)
    {
        let (charged, overrun) = match reservation.end {
            Some(End::Settled(settlement)) => (settlement.charged, settlement.overrun),
            // An answer that came too late has paid for all that it had set aside.
            Some(End::Expired) => (record.charged, record.overrun),
            Some(End::Released) | None => (0, 0),
        };
        let agrees = record.charged == charged && record.overrun == overrun;
        sim.check(agrees, || format!("r{whose} paid {charged} and {overrun} beyond; recorded is {record:?}"));
    }
}

/// What the client heard, what the model said and what was kept are one.
fn answer_of(world: &World, request: &RequestId, facts: &Facts) {
    let (sim, whose) = (&world.sim, number(request));
    sim.check(facts.turns.len() <= 1, || format!("r{whose} has {} turns", facts.turns.len()));
    let kept = facts.turns.first().and_then(|turn| turn.last());
    if let Some(kept) = kept {
        sim.check(facts.said.starts_with(&kept.content), || {
            format!("r{whose} keeps {:?}, and the model said {:?}", kept.content, facts.said)
        });
    }
    match &facts.told {
        Some(Told::Refused(reason)) if !facts.cut => {
            sim.check(kept.is_none(), || format!("r{whose} was refused ({reason}) and keeps a turn"));
        }
        Some(Told::Answered(heard)) if !heard.replayed => {
            let Heard { content, failure, done, .. } = heard;
            let agrees = if done.ending == Ending::Finished {
                facts.said == *content
            } else {
                facts.said.starts_with(content.as_str())
            };
            sim.check(agrees, || format!("r{whose} heard {content:?}, and the model said {:?}", facts.said));
            sim.check(failure.is_some() || done.finish_reason.is_some() || done.ending == Ending::ClientGone, || {
                format!("the answer to r{whose} has neither end nor failure")
            });
            if *failure == Some(StreamFailure::NotKept) {
                sim.check(facts.struck(&[Call::Append]), || format!("r{whose} was not kept for no reason"));
            }
            let must_be_kept = facts.session.is_some() && !content.is_empty() && !facts.struck(&[Call::Append]);
            sim.check(kept.is_some() || !must_be_kept, || format!("the turn of r{whose} was acknowledged and is lost"));
            if let Some(kept) = kept {
                // Who is too slow may miss pieces of what is kept.
                let is_same = kept.content == *content
                    || done.ending == Ending::ClientGone && kept.content.starts_with(content.as_str());
                sim.check(is_same, || format!("r{whose} heard {content:?} and keeps {:?}", kept.content));
            }
        }
        _ => {}
    }
}

/// The same key gives the same answer, which was made once.
fn keys(world: &World, facts: &BTreeMap<RequestId, Facts>) {
    let sim = &world.sim;
    let mut groups: BTreeMap<(&TenantId, &IdempotencyKey), Vec<(&RequestId, &Facts)>> = BTreeMap::new();
    for (request, facts) in facts {
        if let Some((key, _)) = &facts.key {
            groups.entry((&facts.tenant, key)).or_default().push((request, facts));
        }
    }
    for ((tenant, key), group) in groups {
        let mut answers: BTreeMap<RequestId, &Heard> = BTreeMap::new();
        for (request, facts) in &group {
            let Some(Told::Answered(heard)) = &facts.told else { continue };
            let whose = number(request);
            let asks = |facts: &Facts| facts.key.as_ref().map(|(_, asks)| *asks);
            let first = group.iter().find(|(other, _)| **other == heard.by);
            let is_of_key = first.is_some_and(|(_, first)| asks(first) == asks(facts) && first.calls > 0);
            sim.check(is_of_key, || format!("r{whose} is told what r{} was", number(&heard.by)));
            // Who was too slow may lack the end, and what came while nobody took it.
            if heard.done.ending == Ending::ClientGone && !heard.replayed {
                continue;
            }
            let other = answers.entry(heard.by).or_insert(heard);
            let is_same = (&other.content, other.failure, &other.done) == (&heard.content, heard.failure, &heard.done);
            sim.check(is_same, || format!("r{whose} is told {heard:?} where another was told {other:?}"));
        }
        let is_left = |facts: &Facts| facts.prevented(&[Call::KeyFinish, Call::KeyAbandon]);
        if group.iter().any(|(_, facts)| is_left(facts)) || world.plan.steps == Steps::Wild {
            continue;
        }
        let begun = |cut: bool| {
            let begun = group.iter().filter(move |(_, facts)| !facts.said.is_empty() && facts.cut == cut);
            begun.map(|(request, _)| number(request)).collect::<Vec<_>>()
        };
        let afresh = begun(false);
        sim.check(afresh.len() <= 1, || format!("{afresh:?} have one key, and each was answered afresh"));
        if group.iter().any(|(_, facts)| facts.cut) {
            continue;
        }
        let now = sim.now();
        let asked = Fingerprint::of(&[b"probe"]);
        // Another question under a key that is taken is a mismatch, whether it is answered or still held.
        let is_right = match world.keys.begin(tenant, key, &asked, PROBE, OVER, now).now_or_never() {
            Some(Ok(Begin::First)) => afresh.is_empty(),
            Some(Ok(Begin::Mismatch)) => is_answered(world, tenant, key, &group),
            _ => false,
        };
        sim.check(is_right, || format!("the key of r{} is held, or its answer lost", number(group[0].0)));
    }
}

/// Whether a repeat would get an answer.
fn is_answered(world: &World, tenant: &TenantId, key: &IdempotencyKey, group: &[(&RequestId, &Facts)]) -> bool {
    let now = world.sim.now();
    group.iter().filter_map(|(_, facts)| facts.key.as_ref()).any(|(_, asks)| {
        let asked = Fingerprint::of(&[&asks.to_le_bytes()]);
        let begun = world.keys.begin(tenant, key, &asked, PROBE, OVER, now).now_or_never();
        matches!(begun, Some(Ok(Begin::Replay(_))))
    })
}

/// Every stream can be taken; while leases last, only where no fault has kept one from being freed.
fn free_streams(world: &World, leases_last: bool) {
    let process = world.process();
    let calls = [Call::SlotEnter, Call::SlotLeave, Call::Enter, Call::Close];
    for tenant in &world.plan.tenants {
        let is_struck = world
            .witness
            .facts()
            .values()
            .any(|facts| facts.life == process.life && facts.tenant == tenant.id && facts.struck(&calls));
        if is_struck && leases_last {
            continue;
        }
        let now = world.sim.now().saturating_add(if leases_last { Duration::ZERO } else { FAR });
        for n in 0..tenant.max_streams {
            let holder = RequestId::new(Uuid::from_u128(u128::MAX - u128::from(n)));
            let until = now.saturating_add(Duration::from_millis(1));
            let entered = process.slots.enter(&tenant.id, holder, tenant.max_streams, until, now).now_or_never();
            let is_free = matches!(entered, Some(Ok(Ok(()))));
            world.sim.check(is_free, || format!("a stream of {} is never free again", tenant.id));
        }
    }
}

/// Nobody has the turn of any session.
fn free_turns(world: &World) {
    let process = world.process();
    for tenant in &world.plan.tenants {
        for session in (0..world.plan.sessions.max(3)).map(session) {
            let entered = process.turns.enter(&tenant.id, &session, PROBE).now_or_never();
            let is_free = matches!(entered, Some(Ok(_)));
            world.sim.check(is_free, || format!("the turn of {session} of {} is never free again", tenant.id));
        }
    }
}
