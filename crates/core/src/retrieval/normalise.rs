//! The form in which a document's text is kept.

/// Normalises a text: line ends become `\n`, blanks at the ends of lines go, more than one empty line becomes one, and control
/// characters that are neither tab nor line end go, a byte order mark too. Offsets of chunks are those of what comes out.
///
/// ```
/// use enigma_core::retrieval::normalise;
/// assert_eq!(normalise("\u{feff}One \r\nTwo\r\n\r\n\r\n\r\nThree\u{0}\n"), "One\nTwo\n\nThree");
/// ```
pub fn normalise(text: &str) -> String {
    let mut normal = String::with_capacity(text.len());
    let mut is_after_empty_line = true;
    for line in text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r')) {
        let start = normal.len();
        normal.extend(line.chars().filter(|c| (!c.is_control() || *c == '\t') && *c != '\u{feff}'));
        normal.truncate(start + normal[start..].trim_end().len());
        let is_empty = normal.len() == start;
        if !(is_empty && is_after_empty_line) {
            normal.push('\n');
        }
        is_after_empty_line = is_empty;
    }
    normal.truncate(normal.trim_end().len());
    normal
}
