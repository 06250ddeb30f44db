//! Citations in an answer: those of the sources stay, and those that the model has made up go.

use std::collections::BTreeSet;

/// How a citation begins.
const OPENING: &str = "[source:";
/// The longest one: the opening, the longest document and chunk, `#` and `]`.
const LONGEST: usize = OPENING.len() + 200 + 10 + 2;

/// The citation of a chunk: `[source:docId#chunkId]`.
pub fn citation(source: &str) -> String {
    format!("{OPENING}{source}]")
}

/// Reads an answer piece by piece and lets through what is no citation, or the citation of a source. However the answer is cut,
/// what comes out is the same, and nowhere in it is a citation of anything else: not even one that is put together by what was
/// taken out of its middle.
///
/// ```
/// use enigma_core::retrieval::CitationFilter;
/// let mut filter = CitationFilter::new(["guide#0".to_owned()]);
/// let mut answer = filter.push("Boil it [source:gui");
/// answer += &filter.push("de#0], then wait [source:myth#7].");
/// answer += &filter.finish();
/// assert_eq!(answer, "Boil it [source:guide#0], then wait .");
/// assert_eq!(filter.cited().collect::<Vec<_>>(), ["guide#0"]);
/// ```
#[derive(Debug, Clone)]
pub struct CitationFilter {
    sources: BTreeSet<String>,
    cited: BTreeSet<String>,
    /// What may yet become a citation; it begins like one.
    held: String,
    /// The longest end of what was let through that could be the beginning of a citation.
    tail: usize,
    /// Whether something was taken out after that.
    has_gap: bool,
}

impl CitationFilter {
    /// A filter that knows these sources, each as `docId#chunkId`.
    pub fn new(sources: impl IntoIterator<Item = String>) -> Self {
        let sources = sources.into_iter().collect();
        Self { sources, cited: BTreeSet::new(), held: String::new(), tail: 0, has_gap: false }
    }

    /// The next piece of the answer; returns what can be told already.
    pub fn push(&mut self, piece: &str) -> String {
        let mut told = String::with_capacity(self.held.len() + piece.len());
        for c in piece.chars() {
            self.take(c, &mut told);
        }
        told
    }

    /// The end of the answer; returns what had to be waited with. A citation that has only begun is none.
    pub fn finish(&mut self) -> String {
        let held = std::mem::take(&mut self.held);
        let mut told = String::new();
        if !held.starts_with(OPENING) {
            self.tell(&held, &mut told);
        }
        told
    }

    /// The sources that were cited so far.
    pub fn cited(&self) -> impl Iterator<Item = &str> {
        self.cited.iter().map(String::as_str)
    }

    fn take(&mut self, c: char, told: &mut String) {
        if self.held.is_empty() && c != '[' {
            return self.tell(c.encode_utf8(&mut [0; 4]), told);
        }
        if self.held.len() < OPENING.len() {
            if OPENING[self.held.len()..].starts_with(c) {
                return self.held.push(c);
            }
            let held = std::mem::take(&mut self.held);
            self.tell(&held, told);
            return self.take(c, told);
        }
        match c {
            ']' => {
                let held = std::mem::take(&mut self.held);
                let source = &held[OPENING.len()..];
                if self.sources.contains(source) {
                    self.cited.insert(source.to_owned());
                    self.tell(&held, told);
                    self.tell("]", told);
                } else {
                    self.has_gap = true;
                }
            }
            // Neither can be within one.
            '[' | '\n' => {
                self.held.clear();
                self.has_gap = true;
                self.take(c, told);
            }
            _ if self.held.len() >= LONGEST => {
                self.held.clear();
                self.has_gap = true;
                self.take(c, told);
            }
            _ => self.held.push(c),
        }
    }

    fn tell(&mut self, text: &str, told: &mut String) {
        for c in text.chars() {
            if std::mem::take(&mut self.has_gap) && self.tail > 0 && OPENING[self.tail..].starts_with(c) {
                // Both sides of the gap together would go on to spell a citation.
                told.push(' ');
                self.tail = 0;
            }
            self.tail = if OPENING[self.tail..].starts_with(c) && self.tail + 1 < OPENING.len() {
                self.tail + 1
            } else {
                usize::from(c == '[')
            };
            told.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filtered(pieces: &[&str], sources: &[&str]) -> String {
        let mut filter = CitationFilter::new(sources.iter().map(|&it| it.to_owned()));
        let mut told: String = pieces.iter().map(|piece| filter.push(piece)).collect();
        told += &filter.finish();
        told
    }

    #[test]
    fn what_is_taken_out_leaves_no_citation_behind() {
        for (answer, told) in [
            ("[sou[source:x#1]rce:y#2] end", "[sou rce:y#2] end"),
            ("[source:[source:x#1]a#0]", "a#0]"),
            ("[source:x#1", ""),
            ("[source", "[source"),
            ("[[source:a#0]]", "[[source:a#0]]"),
            ("[source:a#0\n]", "\n]"),
            ("[source:a#1] [1] [sources: a]", " [1] [sources: a]"),
        ] {
            assert_eq!(filtered(&[answer], &["a#0"]), told, "{answer}");
        }
        let long = format!("[source:{}]x", "y".repeat(5000));
        assert!(!filtered(&[&long], &[]).contains(OPENING));
    }

    /// The citations that a client would read.
    fn citations(text: &str) -> Vec<&str> {
        text.match_indices(OPENING)
            .filter_map(|(at, _)| text[at + OPENING.len()..].split_once(']'))
            .map(|(source, _)| source)
            .collect()
    }

    proptest! {
        #[test]
        fn only_citations_of_sources_come_out_however_the_answer_is_cut(
            parts in proptest::collection::vec(
                prop_oneof![
                    Just("[source:a#0]"), Just("[source:b#1]"), Just("[source:"), Just("[sou"), Just("rce:"), Just("]"),
                    Just("["), Just("a#0"), Just("b#1"), Just(" text é "), Just("\n"), Just("source:"), Just("s"), Just("ource:"),
                ],
                0..40,
            ),
            cut in 1usize..5,
        ) {
            let answer = parts.concat();
            let whole = filtered(&[&answer], &["a#0"]);
            let chars: Vec<String> = answer.chars().map(String::from).collect();
            let pieces: Vec<String> = chars.chunks(cut).map(<[String]>::concat).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            prop_assert_eq!(&filtered(&pieces, &["a#0"]), &whole);
            prop_assert!(citations(&whole).iter().all(|source| *source == "a#0"), "{whole:?}");
            let mut filter = CitationFilter::new(["a#0".to_owned()]);
            filter.push(&answer);
            prop_assert_eq!(filter.cited().count() > 0, whole.contains("[source:a#0]"));
        }

        #[test]
        fn text_without_brackets_is_left_alone(text in "[^\\[]{0,300}") {
            prop_assert_eq!(filtered(&[&text], &[]), text);
        }
    }
}
