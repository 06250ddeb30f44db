//! How a text is cut into chunks.

use unicode_segmentation::UnicodeSegmentation;

use super::Chunk;

/// The size of chunks, in characters.
///
/// Characters and not tokens, so that chunks do not depend on the model that embeds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkingOptions {
    max_size: usize,
    overlap: usize,
}

impl ChunkingOptions {
    /// The smallest `max_size`.
    pub const MIN_SIZE: usize = 50;
    /// The largest `max_size`.
    pub const MAX_SIZE: usize = 8000;

    /// Chunks of at most `max_size` characters, of which the first `overlap` may be the last ones of the chunk before. `None` when
    /// `max_size` is not within bounds, or `overlap` is more than half of it.
    pub const fn new(max_size: usize, overlap: usize) -> Option<Self> {
        if max_size >= Self::MIN_SIZE && max_size <= Self::MAX_SIZE && overlap <= max_size / 2 {
            Some(Self { max_size, overlap })
        } else {
            None
        }
    }
}

impl ChunkingOptions {
    /// The most characters of a chunk.
    pub const fn max_size(&self) -> usize {
        self.max_size
    }

    /// The most characters of a chunk that are those of the one before.
    pub const fn overlap(&self) -> usize {
        self.overlap
    }
}

impl Default for ChunkingOptions {
    fn default() -> Self {
        Self { max_size: 1000, overlap: 100 }
    }
}

/// How good a place is to cut; the larger the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Seam {
    Line,
    Sentence,
    Paragraph,
    /// Before a Markdown heading.
    Section,
}

/// Cuts a text, which should be [normalised](super::normalise), into chunks of whole sections, paragraphs or sentences where they
/// fit, else of whole words or at least of whole characters as people see them.
///
/// No chunk is longer than the options say, none is blank, and together they have every character of the text that is not blank.
/// A chunk begins where the one before ended, or up to the overlap before that; never across a heading.
///
/// ```
/// use enigma_core::retrieval::{ChunkingOptions, chunk};
/// let text = "# Tea\n\nBoil the water. Wait for three minutes.\n\n# Coffee\n\nGrind the beans.";
/// let chunks = chunk(text, &ChunkingOptions::new(60, 0).unwrap());
/// let texts: Vec<_> = chunks.iter().map(|chunk| &*chunk.text).collect();
/// assert_eq!(texts, ["# Tea\n\nBoil the water. Wait for three minutes.\n\n", "# Coffee\n\nGrind the beans."]);
/// ```
pub fn chunk(text: &str, options: &ChunkingOptions) -> Vec<Chunk> {
    let seams = seams(text);
    let mut chunks = Vec::new();
    let (mut start, mut covered) = (0, 0);
    while covered < text.len() {
        let (end, is_section) = end_of_chunk(text, &seams, start, covered, options.max_size);
        let piece = &text[start..end];
        if !text[covered..end].trim().is_empty() {
            let ordinal = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
            chunks.push(Chunk { ordinal, start: start as u64, text: piece.to_owned() });
        }
        covered = end;
        start = if is_section { end } else { start_of_next(text, &seams, start, end, options.overlap) };
    }
    chunks
}

/// Where the text can be cut well, in order.
fn seams(text: &str) -> Vec<(usize, Seam)> {
    let mut seams: Vec<_> = text.split_sentence_bound_indices().map(|(at, _)| (at, Seam::Sentence)).collect();
    let (mut at, mut is_code, mut is_after_empty_line) = (0, false, true);
    for line in text.split_inclusive('\n') {
        let content = line.trim();
        let is_fence = content.starts_with("```") || content.starts_with("~~~");
        let seam = if is_code {
            Seam::Line
        } else if is_heading(line) {
            Seam::Section
        } else if is_after_empty_line || is_fence {
            Seam::Paragraph
        } else {
            Seam::Line
        };
        seams.push((at, seam));
        is_code ^= is_fence;
        is_after_empty_line = content.is_empty();
        at += line.len();
    }
    seams.sort_unstable();
    // Of seams at one place the best one stays.
    seams.reverse();
    seams.dedup_by_key(|(at, _)| *at);
    seams.reverse();
    seams
}

/// Whether a line is a heading of the form `# Title`.
fn is_heading(line: &str) -> bool {
    let marks = line.bytes().take_while(|b| *b == b'#').count();
    (1..=6).contains(&marks) && line[marks..].starts_with(' ') && !line[marks..].trim().is_empty()
}

/// The byte at which `count` characters from `start` have passed, or the end of the text.
fn after_chars(text: &str, start: usize, count: usize) -> usize {
    text[start..].char_indices().nth(count).map_or(text.len(), |(at, _)| start + at)
}

/// Where the chunk that begins at `start` ends, at least one character after `covered`; and whether a heading begins there.
fn end_of_chunk(text: &str, seams: &[(usize, Seam)], start: usize, covered: usize, max_size: usize) -> (usize, bool) {
    let limit = after_chars(text, start, max_size);
    let first = seams.partition_point(|(at, _)| *at <= covered);
    let within = &seams[first..seams.partition_point(|(at, _)| *at <= limit).max(first)];
    // What a section has left of its predecessor's room would be a mixture of two subjects, unless one of them is a few words.
    let small = after_chars(text, start, max_size / 4);
    if let Some((at, _)) = within.iter().find(|(at, seam)| *seam == Seam::Section && *at >= small) {
        return (*at, true);
    }
    if limit == text.len() {
        return (limit, false);
    }
    let half = after_chars(text, start, max_size / 2);
    let late = within.iter().filter(|(at, _)| *at >= half).max_by_key(|(at, seam)| (*seam, *at));
    if let Some((at, _)) = late.or_else(|| within.iter().max_by_key(|(at, seam)| (*seam, *at))) {
        return (*at, false);
    }
    let rest = &text[covered..limit];
    let word = rest.split_word_bound_indices().map(|(at, _)| at).rfind(|at| *at > 0 && covered + at >= half);
    let grapheme = || rest.grapheme_indices(true).map(|(at, _)| at).rfind(|at| *at > 0);
    (word.or_else(grapheme).map_or(limit, |at| covered + at), false)
}

/// Where the chunk after the one from `start` to `end` begins: at the first seam, or else word, of its last `overlap` characters.
fn start_of_next(text: &str, seams: &[(usize, Seam)], start: usize, end: usize, overlap: usize) -> usize {
    if overlap == 0 {
        return end;
    }
    let earliest = text[start..end].char_indices().rev().nth(overlap - 1).map_or(end, |(at, _)| start + at);
    if earliest <= start {
        return end;
    }
    let first = seams.partition_point(|(at, _)| *at < earliest);
    match seams.get(first) {
        Some((at, _)) if *at < end => *at,
        _ => {
            let tail = &text[earliest..end];
            let begins_word = |at: usize| tail[at..].chars().next().is_some_and(char::is_alphanumeric);
            let word = tail.split_word_bound_indices().map(|(at, _)| at).find(|at| *at > 0 && begins_word(*at));
            word.map_or(end, |at| earliest + at)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::normalise;
    use super::*;
    use proptest::prelude::*;

    /// Whether the chunks have everything of `text` that is not blank, exactly where they say.
    fn check(text: &str, options: &ChunkingOptions) -> Result<(), TestCaseError> {
        let mut covered = 0;
        for (n, chunk) in chunk(text, options).iter().enumerate() {
            let start = usize::try_from(chunk.start).unwrap();
            prop_assert_eq!(chunk.ordinal as usize, n);
            prop_assert_eq!(text.get(start..start + chunk.text.len()), Some(&*chunk.text));
            prop_assert!(chunk.text.chars().count() <= options.max_size);
            prop_assert!(!chunk.text.trim().is_empty());
            let lost = text.get(covered..start.max(covered)).unwrap();
            prop_assert!(lost.trim().is_empty(), "{lost:?} is lost");
            prop_assert!(start >= covered || text[start..covered].chars().count() <= options.overlap);
            prop_assert!(start + chunk.text.len() > covered, "a chunk has nothing new");
            covered = start + chunk.text.len();
        }
        prop_assert!(text[covered..].trim().is_empty());
        Ok(())
    }

    fn options() -> impl Strategy<Value = ChunkingOptions> {
        (50usize..400).prop_flat_map(|max_size| {
            (0..=max_size / 2).prop_map(move |overlap| ChunkingOptions::new(max_size, overlap).unwrap())
        })
    }

    proptest! {
        #[test]
        fn nothing_of_any_text_is_lost(text in any::<String>().prop_map(|text| text.repeat(7)), options in options()) {
            check(&text, &options)?;
            check(&normalise(&text), &options)?;
        }

        #[test]
        fn nothing_of_what_looks_like_markdown_is_lost(
            parts in proptest::collection::vec(
                prop_oneof![
                    "[a-zé]{1,12}[ .!?]", "#{1,7} [A-Z][a-z]{0,20}\n", Just("\n\n".to_owned()), Just("```\n".to_owned()),
                    "- [a-z ]{1,30}\n", Just("👩‍👩‍👧‍👦".to_owned()), "[\u{300}-\u{36f}]{1,9}", Just(" ".repeat(70)),
                ],
                0..200,
            ),
            options in options(),
        ) {
            let text = parts.concat();
            check(&text, &options)?;
            check(&normalise(&text), &options)?;
        }

        #[test]
        fn what_is_normal_stays_so(text in any::<String>()) {
            let normal = normalise(&text);
            prop_assert_eq!(normalise(&normal), normal);
        }
    }

    fn texts(text: &str, max_size: usize, overlap: usize) -> Vec<String> {
        let chunks = chunk(text, &ChunkingOptions::new(max_size, overlap).unwrap());
        chunks.into_iter().map(|chunk| chunk.text).collect()
    }

    #[test]
    fn sentences_are_kept_whole_and_overlap_by_whole_ones() {
        let text =
            "The first one is here. The second one is longer. The third one. The fourth one is the last of them.";
        assert_eq!(
            texts(text, 60, 0),
            ["The first one is here. The second one is longer. ", "The third one. The fourth one is the last of them.",]
        );
        assert_eq!(
            texts(text, 60, 30),
            [
                "The first one is here. The second one is longer. ",
                "The second one is longer. The third one. ",
                "The third one. The fourth one is the last of them.",
            ]
        );
    }

    #[test]
    fn a_word_is_cut_only_where_there_is_no_other_way() {
        assert_eq!(texts(&"word ".repeat(20), 52, 0)[0], "word ".repeat(10));
        let long = "x".repeat(120);
        assert_eq!(texts(&long, 50, 0).concat(), long);
    }

    #[test]
    fn a_heading_in_code_is_none() {
        let text = format!("# One\n\n```\n{}# no heading\nx\n```\n\nEnd.", "code of one line\n".repeat(2));
        assert_eq!(texts(&text, 200, 0), [text.as_str()]);
    }
}
