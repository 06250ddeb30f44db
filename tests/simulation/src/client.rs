//! Those who ask: they repeat themselves, read slowly, go away at any point, and look at what they are told.

use std::sync::Arc;

use enigma_core::chat::{ChatCommand, ChatError, ChatEvent, ChatEvents, ChatReply, SessionError, StreamFailure};
use enigma_core::idempotency::{Fingerprint, IdempotencyKey};
use enigma_core::model::{ChatMessage, Role};
use enigma_core::ports::Clock;
use enigma_core::session::StoredMessage;
use enigma_core::tenant::{ClientAddress, Presented, Principal, RequestIdentity, TenantContext, UserHints};
use enigma_core::{RequestId, SessionId, TenantId, TraceId, UserId};
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, Either, select};

use crate::documents;
use crate::plan::{TenantPlan, session};
use crate::sim::Sim;
use crate::verdict::at_its_end;
use crate::witness::{Heard, Told, marker, number, request_of};
use crate::world::{Process, SEND, World};

/// One client, from its first wish to its last.
pub(crate) async fn client(world: Arc<World>) {
    for _ in 0..world.plan.actions {
        let sim = &world.sim;
        match sim.below(4) {
            0 => sim.pause(sim.between(1, 20_000)).await,
            1 => sim.pause(sim.between(1, 500)).await,
            _ => Sim::turns(sim.below(30)).await,
        }
        let tenant = sim.pick(&world.plan.tenants);
        let process = world.process();
        let Some(context) = enter(&world, &process, tenant).await else { continue };
        match sim.below(28) {
            0 | 1 => delete(&world, &process, &context).await,
            2 => history(&world, &process, &context).await,
            3 => list(&world, &process, &context).await,
            20..24 => documents::search(&world, &process, context).await,
            24..27 => documents::ingest(&world, &process, context).await,
            27 => documents::forget(&world, &process, &context).await,
            _ => ask(&world, &process, context).await,
        }
    }
}

/// Comes in with a key that counts, one that does not any more, one of another tenant, or none.
async fn enter(world: &World, process: &Process, tenant: &TenantPlan) -> Option<TenantContext> {
    let sim = &world.sim;
    let epoch = world.epoch();
    let (owner, shown) = match sim.below(12) {
        0 => (tenant, epoch.saturating_sub(1)),
        1 => (sim.pick(&world.plan.tenants), epoch),
        _ => (tenant, epoch),
    };
    let secret = owner.secret(shown);
    let presented = (!tenant.is_open() || sim.chance(500)).then(|| Presented::new(&secret));
    let identity = RequestIdentity { tenant: Some(tenant.id.as_str()), host: None, presented };
    let address = ClientAddress::new(&format!("192.0.2.{}", sim.below(3)));
    let found = process.resolver.resolve(&identity).await.ok()?;
    let context = process.resolver.authenticate(found, identity.presented.as_ref(), &address, sim.now()).await.ok()?;
    sim.check(*context.id() == tenant.id, || format!("who asks for {} gets into {}", tenant.id, context.id()));
    if matches!(context.principal(), Principal::Key { .. }) {
        let counts = owner.id == tenant.id && shown == epoch;
        sim.check(counts, || format!("the key {secret} opens {} in epoch {epoch}", tenant.id));
    }
    Some(context)
}

/// When a client loses its patience, if ever.
pub(crate) fn patience(world: &World) -> BoxFuture<'static, ()> {
    let sim = &world.sim;
    if !sim.chance(world.plan.rates.leave) {
        return Box::pin(futures_util::future::pending());
    }
    match sim.below(3) {
        0 => sim.pause(sim.between(1, 30_000)),
        _ => Box::pin(Sim::turns(sim.below(120))),
    }
}

async fn ask(world: &World, process: &Arc<Process>, context: TenantContext) {
    let sim = &world.sim;
    let hints = UserHints { body: None, header: UserId::new(&format!("user-{}", sim.below(2))).ok() };
    let caller = context.caller(hints);
    let asked = sim.chance(world.plan.rates.key).then(|| (sim.below(2), u64::from(sim.chance(100))));
    let key = asked.map(|(key, asks)| {
        (IdempotencyKey::new(&caller.subject, "/chat", &format!("k{key}")).expect("it is printable"), asks)
    });
    // A repeat asks what the first request has asked.
    let place = asked.map_or_else(|| sim.below(world.plan.sessions + 1), |(key, asks)| key + asks);
    let session = place.checked_sub(1).map(session);
    let request = world.witness.announce(context.id(), session, key.clone(), process.life);
    let command = ChatCommand {
        session,
        model: match sim.below(24) {
            0..3 => None,
            3 => Some(crate::world::model_id("nobody-serves-this")),
            _ => Some(crate::world::model_id("main")),
        },
        max_tokens: sim.chance(700).then(|| u32::try_from(sim.between(1, 120)).expect("the bounds are small")),
        idempotency: key.map(|(key, asks)| (key, Fingerprint::of(&[&asks.to_le_bytes()]))),
        ..ChatCommand::new(
            request,
            TraceId::new(&number(&request).to_string()).expect("a number is a trace"),
            caller,
            question(sim, &marker(context.id(), session.as_ref(), &request)),
        )
    };
    sim.note(|| format!("r{} asks in {session:?} of {}", number(&request), context.id()));
    let tenant = context.id().clone();
    let background = world.background(process, request);
    let patience = patience(world);
    let sending = Box::pin(process.chat.send(context, command, &background));
    match select(sending, patience).await {
        Either::Left((Ok(reply), patience)) => read(world, &tenant, request, reply, patience).await,
        Either::Left((Err(rejected), _)) => {
            if matches!(rejected.error, ChatError::Died) {
                let is_cut = world.witness.about(&request, |facts| facts.cut).unwrap_or_default();
                sim.check(is_cut, || format!("the task of r{} is lost", number(&request)));
            }
            world.witness.about(&request, |facts| facts.told = Some(Told::Refused(rejected.to_string())));
            at_its_end(world, &request);
        }
        Either::Right(((), _)) => sim.note(|| format!("the client of r{} goes away", number(&request))),
    }
}

fn question(sim: &Sim, own: &str) -> Vec<ChatMessage> {
    let user = |text: &str| ChatMessage::text(Role::User, format!("{own}{text}"));
    match sim.below(8) {
        0 => vec![ChatMessage::text(Role::System, format!("{own}be brief")), user("question?")],
        1 => vec![user("one"), user("two?")],
        2 => vec![user("said"), ChatMessage::text(Role::Assistant, format!("{own}answered")), user("question?")],
        _ => vec![user(&"?".repeat(usize::try_from(sim.below(60)).expect("it is small")))],
    }
}

/// Reads a reply to its end, or for as long as the client cares.
async fn read(
    world: &World,
    tenant: &TenantId,
    request: RequestId,
    reply: ChatReply,
    mut patience: BoxFuture<'static, ()>,
) {
    let sim = &world.sim;
    let ChatReply { request: by, replayed, mut events, .. } = reply;
    sim.check(replayed || by == request, || format!("r{} is answered as r{}", number(&request), number(&by)));
    world.witness.about(&request, |facts| facts.told = Some(Told::Began));
    let is_slow = sim.chance(world.plan.rates.slow);
    let mut heard = Partial::default();
    loop {
        if is_slow {
            let longest = u64::try_from(SEND.as_millis()).expect("it is seconds") * 3 / 2;
            sim.pause(sim.between(1, longest)).await;
        }
        let next = select(Box::pin(next(&mut events)), patience).await;
        let Either::Left((event, rest)) = next else {
            return sim.note(|| format!("the reader of r{} goes away", number(&request)));
        };
        patience = rest;
        let Some(event) = event else { break };
        heard.take(sim, tenant, request, by, event);
    }
    let Some(done) = heard.done else {
        let is_cut = world.witness.about(&request, |facts| facts.cut).unwrap_or_default();
        return sim.check(is_cut, || format!("the answer to r{} ends without done", number(&request)));
    };
    let Partial { content, failure, .. } = heard;
    world.witness.about(&request, |facts| {
        facts.told = Some(Told::Answered(Heard { by, replayed, content, failure, done }));
    });
    at_its_end(world, &request);
}

async fn next(events: &mut ChatEvents) -> Option<ChatEvent> {
    events.next().await
}

/// What was heard of an answer so far.
#[derive(Default)]
struct Partial {
    content: String,
    failure: Option<StreamFailure>,
    done: Option<enigma_core::chat::ChatDone>,
}

impl Partial {
    fn take(&mut self, sim: &Sim, tenant: &TenantId, request: RequestId, by: RequestId, event: ChatEvent) {
        let whose = number(&request);
        sim.check(self.done.is_none(), || format!("after done r{whose} hears {event:?}"));
        match event {
            ChatEvent::Content(text) => {
                sim.check(self.failure.is_none(), || format!("after a failure r{whose} hears {text:?}"));
                let is_own =
                    text.is_empty() || text.starts_with(&format!("{tenant}|")) && request_of(&text) == Some(by);
                sim.check(is_own, || format!("r{whose} of {tenant} is told another's text: {text}"));
                self.content.push_str(&text);
            }
            ChatEvent::Reasoning(_) | ChatEvent::ToolCall(_) | ChatEvent::Tool(_) => {}
            ChatEvent::Failed(failure) => {
                let again = self.failure.replace(failure);
                sim.check(again.is_none(), || format!("r{whose} fails twice"));
            }
            ChatEvent::Done(done) => self.done = Some(done),
        }
    }
}

async fn delete(world: &World, process: &Arc<Process>, context: &TenantContext) {
    let sim = &world.sim;
    let session = session(sim.below(world.plan.sessions));
    let request = world.witness.announce(context.id(), None, None, process.life);
    sim.note(|| format!("r{} deletes {session} of {}", number(&request), context.id()));
    let background = world.background(process, request);
    let deleting = Box::pin(process.sessions.delete(context, &session, request, &background));
    if let Either::Left((deleted, _)) = select(deleting, patience(world)).await {
        sim.note(|| format!("r{}: {deleted:?}", number(&request)));
    }
}

async fn history(world: &World, process: &Process, context: &TenantContext) {
    let sim = &world.sim;
    let id = session(sim.below(world.plan.sessions));
    let limit = *sim.pick(&[1, 5, 100]);
    let page = match process.sessions.history(context, &id, None, limit).await {
        Ok(page) => page,
        Err(SessionError::NotFound | SessionError::Port(_)) => return,
        Err(SessionError::Busy) => return sim.violate("who reads a history is told that it is busy"),
    };
    whole_turns(world, context.id(), &id, &page.messages);
}

/// Turns are contiguous and whole, but that the first shown may lack its beginning.
fn whole_turns(world: &World, tenant: &TenantId, session: &SessionId, messages: &[StoredMessage]) {
    let sim = &world.sim;
    let turns = messages.chunk_by(|one, other| request_of(&one.content) == request_of(&other.content));
    for (place, turn) in turns.enumerate() {
        let request = request_of(&turn[0].content);
        let Some(request) = request else { return sim.violate(format!("{tenant} is shown {turn:?}")) };
        let is_own = turn[0].content.starts_with(&marker(tenant, Some(session), &request));
        sim.check(is_own, || format!("{tenant} is shown another's turn: {turn:?}"));
        let whole = world.witness.about(&request, |facts| facts.turns.first().cloned()).flatten().unwrap_or_default();
        let is_whole = if place == 0 { whole.ends_with(turn) } else { whole == turn };
        sim.check(is_whole, || format!("{tenant} is shown a torn turn: {turn:?} of {whole:?}"));
    }
}

async fn list(world: &World, process: &Process, context: &TenantContext) {
    let sim = &world.sim;
    let Ok(page) = process.sessions.list(context, None, None, 10).await else { return };
    let known: Vec<SessionId> = (0..world.plan.sessions.max(3)).map(session).collect();
    for summary in &page.sessions {
        sim.check(known.contains(&summary.id), || format!("{} has a session {}", context.id(), summary.id));
    }
    let order = page.sessions.is_sorted_by(|one, other| one.updated_at >= other.updated_at);
    sim.check(order, || format!("the list of {} is out of order", context.id()));
}
