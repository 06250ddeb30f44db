//! One conversation while it is served.

use std::ops::Range;
use std::task::Context;

use enigma_core::TenantId;
use enigma_core::model::{FinishReason, Usage};
use futures_channel::mpsc;

use super::answer::Piece;
use super::queue::{Place, Waiting};
use crate::network::Part;
use crate::sampler::Sampler;
use crate::stop::StopTexts;
use crate::tokenizer::{Tokenizer, Utf8Stream};

/// What the engine is asked.
pub(crate) struct Request {
    /// Who asks.
    pub(crate) tenant: TenantId,
    /// The prompt, not empty.
    pub(crate) prompt: Vec<u32>,
    /// Tokens that the answer may have; prompt and answer fit the context together.
    pub(crate) room: usize,
    /// How tokens are chosen.
    pub(crate) sampler: Sampler,
    /// What ends the answer.
    pub(crate) stop: StopTexts,
}

/// A part in the next step.
#[derive(Debug)]
enum Plan {
    Rest,
    /// These tokens of the prompt are read.
    Read(Range<usize>),
    /// The token chosen last is fed, and another one chosen.
    Speak,
}

pub(super) struct Conversation<S> {
    request: Request,
    answer: mpsc::Sender<Piece>,
    seq: S,
    read: usize,
    last_read: u64,
    chosen: [u32; 1],
    made: usize,
    utf8: Utf8Stream,
    plan: Plan,
    _place: Place,
}

impl<S> Conversation<S> {
    pub(super) fn new((waiting, place): (Waiting, Place), seq: S) -> Self {
        Self {
            request: waiting.request,
            answer: waiting.answer,
            seq,
            read: 0,
            last_read: 0,
            chosen: [0],
            made: 0,
            utf8: Utf8Stream::default(),
            plan: Plan::Rest,
            _place: place,
        }
    }

    /// Whether nobody reads the answer any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }

    /// Whether some of the prompt is still unread.
    pub(super) fn is_reading(&self) -> bool {
        self.read < self.request.prompt.len()
    }

    /// The step in which it last read.
    pub(super) fn last_read(&self) -> u64 {
        self.last_read
    }

    /// Goes on in the next step, unless the prompt is unread or the reader is behind; then the reader wakes the engine.
    pub(super) fn plan_to_speak(&mut self, context: &mut Context<'_>) {
        let has_room = self.answer.poll_ready(context).is_ready();
        self.plan = if has_room && !self.is_reading() { Plan::Speak } else { Plan::Rest };
    }

    /// Reads so many tokens of the prompt in the next step.
    pub(super) fn plan_to_read(&mut self, tokens: usize, step: u64) {
        let end = self.request.prompt.len().min(self.read + tokens);
        self.plan = Plan::Read(self.read..end);
        self.last_read = step;
    }

    /// Whether it takes part in the step.
    pub(super) fn is_planned(&self) -> bool {
        !matches!(self.plan, Plan::Rest)
    }

    /// What it feeds to the network.
    pub(super) fn part(&mut self) -> Option<Part<'_, S>> {
        let (tokens, wants_logits) = match &self.plan {
            Plan::Rest => return None,
            Plan::Read(range) => (&self.request.prompt[range.clone()], range.end == self.request.prompt.len()),
            Plan::Speak => (&self.chosen[..], true),
        };
        Some(Part { tokens, seq: &mut self.seq, wants_logits })
    }

    /// Takes what the network made of it. False when that ends the conversation.
    pub(super) fn finish_step(&mut self, logits: Option<Vec<f32>>, tokenizer: &Tokenizer) -> bool {
        if let Plan::Read(range) = &self.plan {
            self.read = range.end;
        }
        logits.is_none_or(|logits| self.speak(logits, tokenizer))
    }

    fn speak(&mut self, mut logits: Vec<f32>, tokenizer: &Tokenizer) -> bool {
        if self.request.room == 0 {
            return self.end(String::new(), FinishReason::Length);
        }
        let token = self.request.sampler.choose(&mut logits);
        // Any control token ends the turn: the model's own end, or the start of what it takes for the next turn. A character that was
        // begun and is not completed is left out.
        let Some(bytes) = tokenizer.bytes(token) else {
            let rest = self.request.stop.finish();
            return self.end(rest, FinishReason::Stop);
        };
        self.chosen = [token];
        self.made += 1;
        let (mut text, is_stopped) = self.request.stop.push(&self.utf8.push(bytes));
        if is_stopped {
            return self.end(text, FinishReason::Stop);
        }
        if self.made >= self.request.room {
            text.push_str(&self.request.stop.finish());
            return self.end(text, FinishReason::Length);
        }
        text.is_empty() || self.send(Piece::Text(text))
    }

    fn end(&mut self, text: String, reason: FinishReason) -> bool {
        let count = |tokens: usize| u32::try_from(tokens).unwrap_or(u32::MAX);
        let usage = Usage { prompt_tokens: count(self.request.prompt.len()), completion_tokens: count(self.made) };
        self.send(Piece::End(text, reason, usage));
        false
    }

    /// Tells the reader that the step failed.
    pub(super) fn fail(&mut self, message: String) {
        self.send(Piece::Failed(message));
    }

    /// There was room before the step, so it fails only when the reader has gone.
    fn send(&mut self, piece: Piece) -> bool {
        self.answer.try_send(piece).is_ok()
    }
}
