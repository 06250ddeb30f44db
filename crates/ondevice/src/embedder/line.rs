//! Calls under way and waiting, and whose text is next.

use std::time::{Duration, Instant};

use enigma_core::TenantId;
use enigma_core::model::{Embeddings, ModelError};
use futures_channel::oneshot;

use crate::fairness::makes_way;

type Answer = oneshot::Sender<Result<Embeddings, ModelError>>;

/// A text that is to be embedded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text {
    call: u64,
    place: usize,
    pub(super) content: String,
}

/// The calls, in the order in which they came.
pub(super) struct Line {
    calls: Vec<Call>,
    capacity: usize,
    patience: Duration,
    /// How many have ever been let in, which numbers them.
    let_in: u64,
    /// How many texts have ever been given out.
    turn: u64,
}

struct Call {
    number: u64,
    tenant: TenantId,
    since: Instant,
    /// When a text of this tenant was last given out; 0 when none was.
    turn: u64,
    /// Those that were not given out yet, the last one first.
    texts: Vec<(usize, String)>,
    has_begun: bool,
    vectors: Vec<Vec<f32>>,
    missing: usize,
    tokens: usize,
    answer: Answer,
}

impl Line {
    pub(super) fn new(capacity: usize, patience: Duration) -> Self {
        Self { calls: Vec::new(), capacity, patience, let_in: 0, turn: 0 }
    }

    /// Lets a call in.
    ///
    /// # Errors
    /// [`ModelError::Busy`] when there is no room and nobody makes way.
    pub(super) fn push(
        &mut self,
        tenant: TenantId,
        texts: Vec<String>,
        answer: Answer,
        now: Instant,
    ) -> Result<(), ModelError> {
        self.tidy(now);
        if texts.is_empty() {
            // Nobody waits for it when the receiver is gone.
            let _ = answer.send(Ok(Embeddings { vectors: Vec::new(), prompt_tokens: Some(0) }));
            return Ok(());
        }
        if self.calls.len() >= self.capacity {
            let waiting: Vec<usize> = (0..self.calls.len()).filter(|at| !self.calls[*at].has_begun).collect();
            let served = self.calls.iter().filter(|call| call.has_begun).map(|call| &call.tenant);
            let makes_way = makes_way(&tenant, served, waiting.iter().map(|at| &self.calls[*at].tenant));
            let displaced = self.calls.remove(waiting[makes_way.ok_or(ModelError::Busy)?]);
            displaced.end(Err(ModelError::Busy));
        }
        let turn = self.calls.iter().find(|call| call.tenant == tenant).map_or(0, |call| call.turn);
        let number = self.let_in;
        self.let_in += 1;
        let missing = texts.len();
        self.calls.push(Call {
            number,
            tenant,
            since: now,
            turn,
            texts: texts.into_iter().enumerate().rev().collect(),
            has_begun: false,
            vectors: vec![Vec::new(); missing],
            missing,
            tokens: 0,
            answer,
        });
        Ok(())
    }

    /// The next text: of the tenant that has waited longest for its turn, of that one's call with the fewest texts left, the first.
    pub(super) fn next(&mut self, now: Instant) -> Option<Text> {
        self.tidy(now);
        let has_texts = self.calls.iter_mut().filter(|call| !call.texts.is_empty());
        let call = has_texts.min_by_key(|call| (call.turn, call.texts.len(), call.number))?;
        let (place, content) = call.texts.pop()?;
        call.has_begun = true;
        let (tenant, number) = (call.tenant.clone(), call.number);
        self.turn += 1;
        for call in self.calls.iter_mut().filter(|call| call.tenant == tenant) {
            call.turn = self.turn;
        }
        Some(Text { call: number, place, content })
    }

    /// Takes in what a text has become. The call of it may have gone meanwhile.
    pub(super) fn finish(&mut self, text: &Text, tokens: usize, vector: Vec<f32>) {
        let Some(at) = self.find(text) else { return };
        let call = &mut self.calls[at];
        call.vectors[text.place] = vector;
        call.missing -= 1;
        call.tokens += tokens;
        if call.missing == 0 {
            let mut call = self.calls.remove(at);
            let vectors = std::mem::take(&mut call.vectors);
            let prompt_tokens = u32::try_from(call.tokens).ok();
            call.end(Ok(Embeddings { vectors, prompt_tokens }));
        }
    }

    /// Ends the call that this text is of.
    pub(super) fn fail(&mut self, text: &Text, error: ModelError) {
        if let Some(at) = self.find(text) {
            self.calls.remove(at).end(Err(error));
        }
    }

    fn find(&self, text: &Text) -> Option<usize> {
        self.calls.binary_search_by_key(&text.call, |call| call.number).ok()
    }

    /// Forgets the calls that nobody waits for any more, and tells those that have waited too long that there is no room.
    fn tidy(&mut self, now: Instant) {
        self.calls.retain(|call| !call.answer.is_canceled());
        let patience = self.patience;
        let is_late = |call: &mut Call| !call.has_begun && now.duration_since(call.since) > patience;
        for late in self.calls.extract_if(.., is_late) {
            late.end(Err(ModelError::Busy));
        }
    }
}

impl Call {
    fn end(self, result: Result<Embeddings, ModelError>) {
        // It fails only when nobody waits for it any more.
        let _ = self.answer.send(result);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Asked = oneshot::Receiver<Result<Embeddings, ModelError>>;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn start() -> Instant {
        Instant::now()
    }

    fn push(line: &mut Line, tenant: &str, texts: usize, now: Instant) -> Result<Asked, ModelError> {
        let (answer, asked) = oneshot::channel();
        line.push(tenant.parse().unwrap(), vec![tenant.to_owned(); texts], answer, now)?;
        Ok(asked)
    }

    fn is_busy(asked: &mut Asked) -> bool {
        matches!(asked.try_recv(), Ok(Some(Err(ModelError::Busy))))
    }

    #[test]
    fn tenants_take_turns_and_the_call_with_the_fewest_texts_left_is_next() {
        let mut line = Line::new(10, PATIENCE);
        let now = start();
        let _asked = [("a", 3), ("a", 2), ("b", 2), ("c", 1)].map(|(who, texts)| push(&mut line, who, texts, now));
        let order: Vec<_> =
            std::iter::from_fn(|| line.next(now)).map(|text| (text.content, text.call, text.place)).collect();
        let expected =
            [("c", 3, 0), ("a", 1, 0), ("b", 2, 0), ("a", 1, 1), ("b", 2, 1), ("a", 0, 0), ("a", 0, 1), ("a", 0, 2)];
        assert_eq!(order, expected.map(|(who, call, place)| (who.to_owned(), call, place)));
    }

    #[test]
    fn who_comes_again_has_had_a_turn() {
        let mut line = Line::new(10, PATIENCE);
        let now = start();
        let _a = push(&mut line, "a", 9, now);
        let _b = push(&mut line, "b", 9, now);
        assert_eq!(line.next(now).unwrap().content, "a");
        let _more = push(&mut line, "a", 1, now);
        assert_eq!(line.next(now).unwrap().content, "b");
    }

    #[test]
    fn a_call_that_has_not_begun_in_time_is_told_and_one_that_has_is_not() {
        let mut line = Line::new(10, PATIENCE);
        let now = start();
        let (mut first, mut second) = (push(&mut line, "a", 2, now).unwrap(), push(&mut line, "a", 5, now).unwrap());
        assert_eq!(line.next(now).unwrap().call, 0);
        let text = line.next(now + PATIENCE + Duration::from_millis(1)).unwrap();
        assert_eq!((text.call, text.place), (0, 1));
        assert!(is_busy(&mut second) && first.try_recv().unwrap().is_none());
        line.finish(&text, 7, vec![1.0]);
        line.finish(&Text { call: 0, place: 0, content: String::new() }, 5, vec![2.0]);
        let Some(Ok(embeddings)) = first.try_recv().unwrap() else { panic!("it is done") };
        assert_eq!(embeddings, Embeddings { vectors: vec![vec![2.0], vec![1.0]], prompt_tokens: Some(12) });
        assert!(line.next(now).is_none() && line.calls.is_empty());
    }

    #[test]
    fn what_has_begun_is_not_cut_for_a_newcomer() {
        let mut line = Line::new(2, PATIENCE);
        let now = start();
        let mut calls = [push(&mut line, "a", 1, now).unwrap(), push(&mut line, "a", 1, now).unwrap()];
        let texts = [line.next(now).unwrap(), line.next(now).unwrap()];
        assert!(matches!(push(&mut line, "b", 1, now), Err(ModelError::Busy)));
        assert!(calls.iter_mut().all(|call| call.try_recv().unwrap().is_none()));
        for text in texts {
            line.fail(&text, ModelError::Busy);
        }
        assert!(calls.iter_mut().all(is_busy));
        // The call of a text may be gone when it is done.
        line.finish(&Text { call: 0, place: 0, content: String::new() }, 1, Vec::new());
        line.fail(&Text { call: 9, place: 0, content: String::new() }, ModelError::Busy);
        assert!(push(&mut line, "b", 1, now).is_ok());
    }
}
