//! What the engine asks of a neural network. It keeps the engine's rules testable without one.

/// The tokens of one conversation in a step: a piece of its prompt, or the token chosen last.
pub(crate) struct Part<'a, S> {
    /// At least one token.
    pub(crate) tokens: &'a [u32],
    /// The conversation they continue.
    pub(crate) seq: &'a mut S,
    /// Whether the next token is to be chosen. The logits of a prompt's inner positions are not needed, and cost a tenth of the work.
    pub(crate) wants_logits: bool,
}

/// A network that continues conversations.
pub(crate) trait Network: Send + 'static {
    /// The memory of one conversation.
    type Seq: Send;

    /// A conversation without a word.
    fn seq(&self) -> Self::Seq;

    /// Feeds all parts at once, and gives the logits after the last token of each that wants them.
    ///
    /// # Errors
    /// When a computation fails. The conversations that took part are spoilt then.
    fn forward(&self, parts: &mut [Part<'_, Self::Seq>]) -> Result<Vec<Option<Vec<f32>>>, candle_core::Error>;
}
