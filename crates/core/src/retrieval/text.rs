//! The text of a document, put together again from its chunks.

use thiserror::Error;

use super::Chunk;

/// A text that has more bytes than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the document's text has more than {most} bytes")]
pub struct TextTooLarge {
    /// So many it may have.
    pub most: usize,
}

/// A text that grows by chunks, in their order.
///
/// Chunks overlap, and say where in the normalised text they begin; what the text has already is not repeated. Between two chunks
/// only blanks can be missing, of which chunks need not have all: a paragraph ends there, so that words of two chunks do not grow
/// together.
///
/// ```
/// use enigma_core::retrieval::{ChunkingOptions, DocumentText, chunk};
/// let text = "One sentence. Another sentence, which is longer. And a third one, which is the last.";
/// let mut whole = DocumentText::new(1000);
/// for chunk in chunk(text, &ChunkingOptions::new(50, 25).unwrap()) {
///     whole.add(&chunk).unwrap();
/// }
/// assert_eq!(whole.into_text(), text);
/// ```
#[derive(Debug)]
pub struct DocumentText {
    text: String,
    /// Up to where the normalised text is covered, in bytes.
    covered: u64,
    most: usize,
}

impl DocumentText {
    /// A text of at most `most` bytes.
    pub const fn new(most: usize) -> Self {
        Self { text: String::new(), covered: 0, most }
    }

    /// Adds the next chunk.
    ///
    /// # Errors
    /// [`TextTooLarge`].
    pub fn add(&mut self, chunk: &Chunk) -> Result<(), TextTooLarge> {
        let known = usize::try_from(self.covered.saturating_sub(chunk.start)).unwrap_or(usize::MAX);
        // Chunks of the platform begin and end between characters. Whoever fills a corpus by other means loses no character.
        let new = chunk.text.get(known..).unwrap_or(if known >= chunk.text.len() { "" } else { &chunk.text });
        let gap = if chunk.start > self.covered && !self.text.is_empty() { "\n\n" } else { "" };
        if self.text.len() + gap.len() + new.len() > self.most {
            return Err(TextTooLarge { most: self.most });
        }
        self.text.push_str(gap);
        self.text.push_str(new);
        self.covered = self.covered.max(chunk.start.saturating_add(chunk.text.len() as u64));
        Ok(())
    }

    /// The text so far.
    pub fn into_text(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ChunkingOptions, chunk, normalise};
    use super::*;
    use proptest::prelude::*;

    fn whole(chunks: &[Chunk]) -> String {
        let mut text = DocumentText::new(1 << 20);
        for chunk in chunks {
            text.add(chunk).unwrap();
        }
        text.into_text()
    }

    fn words(text: &str) -> Vec<&str> {
        text.split_whitespace().collect()
    }

    proptest! {
        #[test]
        fn of_what_is_not_blank_nothing_is_lost_or_doubled(
            parts in proptest::collection::vec(
                prop_oneof!["[a-zé]{1,12}[ .!?] ", Just("\n\n# Heading\n".to_owned()), Just("👩‍👩‍👧‍👦".to_owned()), Just(" ".repeat(120))],
                0..150,
            ),
            overlap in 0usize..30,
        ) {
            let text = normalise(&parts.concat());
            let chunks = chunk(&text, &ChunkingOptions::new(60, overlap).unwrap());
            let again = whole(&chunks);
            prop_assert_eq!(words(&again), words(&text));
        }
    }

    #[test]
    fn a_text_without_gaps_comes_back_to_the_byte() {
        let text = normalise(&"Grüße aus Köln. 世界 is the world. 🦀 crabs walk.\n\n".repeat(40));
        for overlap in [0, 10, 50] {
            assert_eq!(whole(&chunk(&text, &ChunkingOptions::new(100, overlap).unwrap())), text);
        }
    }

    #[test]
    fn what_is_missing_between_chunks_ends_a_paragraph() {
        let at = |start, text: &str| Chunk { ordinal: 0, start, text: text.to_owned() };
        assert_eq!(whole(&[at(0, "one"), at(300, "two"), at(303, "!")]), "one\n\ntwo!");
        assert_eq!(whole(&[at(9, "first")]), "first", "nothing is before the first");
        assert_eq!(whole(&[at(0, "known already"), at(3, "wn a")]), "known already");
        assert_eq!(whole(&[at(0, "é"), at(1, "éx")]), "ééx", "no character is cut");
    }

    #[test]
    fn a_text_is_bounded() {
        let mut text = DocumentText::new(10);
        let chunk = Chunk { ordinal: 0, start: 0, text: "0123456".to_owned() };
        text.add(&chunk).unwrap();
        let next = Chunk { start: 7, ..chunk };
        assert_eq!(text.add(&next), Err(TextTooLarge { most: 10 }));
        assert_eq!(text.into_text(), "0123456");
    }
}
