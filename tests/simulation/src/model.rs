//! A model that does as the seed likes, and looks at every call that reaches it.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use enigma_core::model::{
    ChatModel, Delta, DeltaStream, FinishReason, ModelCall, ModelError, Phase, Role, ToolCallDelta, Usage,
};
use enigma_core::{RequestId, SessionId, TenantId};
use futures_util::StreamExt;
use futures_util::future::pending;
use futures_util::stream::unfold;
use uuid::Uuid;

use crate::plan::{Plan, Steps};
use crate::ports::ledger::JournaledLedger;
use crate::ports::sessions::SeenStore;
use crate::sim::Sim;
use crate::witness::{Witness, marker, number};

type Active = Arc<Mutex<BTreeMap<RequestId, (TenantId, Option<SessionId>)>>>;

/// Every model of one life of the process.
pub(crate) struct SimModel {
    pub(crate) plan: Arc<Plan>,
    pub(crate) witness: Witness,
    pub(crate) ledger: JournaledLedger,
    pub(crate) store: Arc<SeenStore>,
    /// The calls under way.
    pub(crate) active: Active,
}

impl SimModel {
    /// What must be true of every call of a model.
    fn inspect(&self, tenant: &TenantId, call: &ModelCall, request: RequestId) {
        let (sim, session) = (&self.witness.sim, call.metadata.session);
        let whose = number(&request);
        sim.check(call.metadata.tenant == *tenant, || format!("r{whose} is called for two tenants"));
        let belongs = format!("{tenant}|s{}|", session.map_or(0, |session| session.uuid().as_u128() & 0xff));
        for message in &call.messages {
            let is_own = message.content.starts_with(&belongs);
            sim.check(is_own, || format!("the model is shown for r{whose} of {belongs}: {}", message.content));
        }
        let own = marker(tenant, session.as_ref(), &request);
        let history = call.messages.iter().take_while(|message| !message.content.starts_with(&own)).collect::<Vec<_>>();
        if let Some(session) = session {
            let kept = self.store.messages(tenant, &session);
            // It may have been shortened. Nobody has changed the session since the turn began.
            let start = kept.len().checked_sub(history.len());
            let shown = start.map(|start| &kept[start..]).unwrap_or_default();
            let agrees = |(shown, kept): (&&enigma_core::model::ChatMessage, &enigma_core::session::StoredMessage)| {
                shown.content == kept.content && shown.role == kept.role
            };
            let is_newest = start.is_some() && history.iter().zip(shown).all(agrees);
            sim.check(is_newest, || format!("r{whose} is shown {history:?}, and the session has {kept:?}"));
            sim.check(history.first().is_none_or(|first| first.role == Role::User), || {
                format!("the history for r{whose} begins with an answer")
            });
        }
        self.is_covered(tenant, &request);
    }

    /// What must be true of a search's calls.
    fn inspect_search(&self, tenant: &TenantId, call: &ModelCall, request: RequestId) {
        let sim = &self.witness.sim;
        let others = self.plan.tenants.iter().map(|other| &other.id).filter(|other| *other != tenant);
        for other in others {
            let is_shown = call.messages.iter().any(|message| message.content.contains(&format!("{other}|")));
            sim.check(!is_shown, || format!("r{} of {tenant} is shown documents of {other}", number(&request)));
        }
        self.is_covered(tenant, &request);
    }

    fn is_covered(&self, tenant: &TenantId, request: &RequestId) {
        if self.plan.steps != Steps::Wild {
            let reservation = self.ledger.reservation(tenant, request);
            let is_covered = reservation.is_some_and(|it| it.end.is_none());
            let whose = number(request);
            self.witness.sim.check(is_covered, || format!("r{whose} calls a model with {reservation:?}"));
        }
    }

    /// Notes that a call is under way, until what this gives is dropped.
    fn begin(&self, tenant: &TenantId, session: Option<SessionId>, request: RequestId) -> UnderWay {
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        let sim = &self.witness.sim;
        let others = active.values().filter(|(other, _)| other == tenant).count() + 1;
        let limit = self.plan.tenant(tenant).map_or(0, |tenant| tenant.max_streams as usize);
        sim.check(others <= limit || self.plan.steps == Steps::Wild, || {
            format!("{tenant} has {others} answers made at once, of {limit}")
        });
        let meets = session.and_then(|session| {
            active
                .iter()
                .find(|(_, (owner, other))| owner == tenant && *other == Some(session))
                .map(|(other, _)| *other)
        });
        if let Some(other) = meets {
            sim.violate(format!("r{} and r{} share a turn", number(&request), number(&other)));
        }
        let again = active.insert(request, (tenant.clone(), session));
        sim.check(again.is_none(), || format!("r{} has two calls at once", number(&request)));
        UnderWay { request, active: Arc::clone(&self.active) }
    }

    fn fails(&self) -> bool {
        self.witness.sim.chance(self.plan.rates.model)
    }

    fn refusal(&self) -> ModelError {
        let sim = &self.witness.sim;
        match sim.below(9) {
            0 => {
                ModelError::RateLimited { retry_after: sim.chance(500).then(|| Duration::from_millis(sim.below(8000))) }
            }
            1 => ModelError::Busy,
            2 => ModelError::Timeout(Phase::Connect),
            3 => ModelError::Rejected { status: *sim.pick(&[400, 404, 413]), message: String::new() },
            4 => ModelError::Unauthorized { status: 401 },
            5 => ModelError::Malformed { message: String::new() },
            6 => ModelError::PromptTooLong,
            7 => ModelError::Unsupported { feature: "simulation" },
            _ => ModelError::unavailable("told to fail"),
        }
    }

    /// What the answer will be, piece by piece.
    fn script(&self, own: &str, call: &ModelCall) -> Vec<Piece> {
        let sim = &self.witness.sim;
        let fails = self.fails();
        let pieces = match sim.below(20) {
            0 if fails => 400,
            0..4 => sim.between(6, 40),
            _ => sim.below(6),
        };
        let mut script = Vec::new();
        for piece in 0..pieces {
            script.push(match sim.below(8) {
                0 => Piece::Wait(sim.between(1, 4_900)),
                1 => Piece::Turns(sim.between(1, 6)),
                2 => Piece::Say(Delta::Reasoning(format!("{own}hm "))),
                3 => Piece::Say(Delta::Content(String::new())),
                _ => {
                    let padding = if pieces == 400 { "x".repeat(200) } else { String::new() };
                    Piece::Say(Delta::Content(format!("{own}a{piece}{padding} ")))
                }
            });
        }
        if fails {
            let at = usize::try_from(sim.below(script.len() as u64 + 1)).expect("it is below a length");
            let trouble = match sim.below(6) {
                0 => Piece::Panic,
                1 => Piece::Hang,
                2 => Piece::Wait(sim.between(4_000, 12_000)),
                3 => Piece::End,
                // In a session no tools are on offer.
                4 if call.metadata.session.is_none() => Piece::Say(Delta::ToolCall(ToolCallDelta {
                    index: 0,
                    id: Some("call".to_owned()),
                    name: Some("tool".to_owned()),
                    arguments: "{}".to_owned(),
                })),
                _ => Piece::Fail,
            };
            script.insert(at, trouble);
        }
        script.push(Piece::Say(Delta::Finish(*sim.pick(&[FinishReason::Stop, FinishReason::Length]))));
        match sim.below(8) {
            0 => {}
            1 => script.push(Piece::Hang),
            2 => script.push(Piece::Fail),
            _ => {
                // A provider may count far more than it was allowed.
                let most = if fails { u64::from(call.max_tokens) * 20 } else { u64::from(call.max_tokens) };
                let count = |bound| u32::try_from(sim.below(bound)).expect("the bounds are small");
                let usage = Usage { prompt_tokens: count(60), completion_tokens: count(most + 1) };
                script.push(Piece::Say(Delta::Usage(usage)));
            }
        }
        script
    }
}

enum Piece {
    Say(Delta),
    Wait(u64),
    Turns(u64),
    Hang,
    Fail,
    End,
    Panic,
}

/// A call, as long as somebody holds it.
struct UnderWay {
    request: RequestId,
    active: Active,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.active.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.request);
    }
}

/// Dies as a panic does, without the report that a panic prints.
pub(crate) fn die() -> ! {
    resume_unwind(Box::new("the model was told to panic"))
}

#[async_trait]
impl ChatModel for SimModel {
    async fn stream(&self, tenant: &TenantId, call: &ModelCall) -> Result<DeltaStream, ModelError> {
        let sim = &self.witness.sim;
        let request = call.metadata.trace.as_str().parse().map(|number| RequestId::new(Uuid::from_u128(number)));
        let Ok(request) = request else {
            sim.violate(format!("a call with the trace {}", call.metadata.trace));
            return Err(ModelError::unavailable("nobody's call"));
        };
        self.witness.about(&request, |facts| facts.calls += 1);
        // A search has several at once.
        let under_way = if call.metadata.route == "/search" {
            self.inspect_search(tenant, call, request);
            UnderWay { request, active: Arc::default() }
        } else {
            self.inspect(tenant, call, request);
            self.begin(tenant, call.metadata.session, request)
        };
        match sim.below(6) {
            0 => sim.pause(sim.between(1, 3000)).await,
            1 => Sim::turns(sim.between(1, 5)).await,
            _ => {}
        }
        if self.fails() {
            match sim.below(6) {
                0 => die(),
                1 => pending().await,
                2 => {}
                _ => return Err(self.refusal()),
            }
        }
        let own = marker(tenant, call.metadata.session.as_ref(), &request);
        if call.metadata.route != "/search" {
            self.witness.about(&request, |facts| facts.said.clear());
        }
        let script = self.script(&own, call).into_iter();
        let witness = self.witness.clone();
        let state = (script, witness, under_way);
        Ok(unfold(state, |(mut script, witness, under_way)| async move {
            loop {
                let item = match script.next()? {
                    Piece::Say(delta) => Ok(delta),
                    Piece::Wait(millis) => {
                        witness.sim.pause(millis).await;
                        continue;
                    }
                    Piece::Turns(turns) => {
                        Sim::turns(turns).await;
                        continue;
                    }
                    Piece::Hang => pending().await,
                    Piece::End => return None,
                    Piece::Panic => die(),
                    Piece::Fail => {
                        script = Vec::new().into_iter();
                        Err(ModelError::unavailable("told to break off"))
                    }
                };
                if let Ok(Delta::Content(text)) = &item {
                    witness.about(&under_way.request, |facts| facts.said.push_str(text));
                }
                return Some((item, (script, witness, under_way)));
            }
        })
        .boxed())
    }
}
