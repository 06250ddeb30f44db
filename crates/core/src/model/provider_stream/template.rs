//! Most events of a stream differ from the one before in nothing but their text. What is the same about them is compared, which
//! costs a twentieth of reading it.

/// How many templates are made of a stream before one has paid.
const FIRST_TRIES: u32 = 4;
/// How many events have to fit for each one more.
const PAYS: u32 = 8;

/// The last event that said a text, and where its text is.
#[derive(Debug, Clone, Default)]
pub(super) struct Template {
    before: Vec<u8>,
    /// Never empty where there is a template: it begins with the quotation mark that ends the text.
    after: Vec<u8>,
    hits: u32,
    tries: u32,
}

impl Template {
    pub(super) const fn none() -> Self {
        Self { before: Vec::new(), after: Vec::new(), hits: 0, tries: 0 }
    }

    /// The text of an event that is like the template in everything else, and whose text stands for itself, without escapes.
    pub(super) fn text<'a>(&mut self, data: &'a [u8]) -> Option<&'a str> {
        if self.after.is_empty() {
            return None;
        }
        let Some(text) = data.strip_prefix(&*self.before).and_then(|rest| rest.strip_suffix(&*self.after)) else {
            self.after.clear();
            return None;
        };
        if !stands_for_itself(text) {
            return None;
        }
        let text = std::str::from_utf8(text).ok()?;
        self.hits = self.hits.saturating_add(1);
        Some(text)
    }

    /// Takes an event that says `text` and nothing else as the template, if it can be found in it. `said` reads an event as it is
    /// read without a template, and gives the text of one that says nothing else: so it is tried, and not guessed, that the
    /// text found is the text said.
    pub(super) fn learn(&mut self, data: &[u8], text: &str, said: impl FnOnce(&[u8]) -> Option<String>) {
        let is_worth_it = self.tries < FIRST_TRIES + self.hits / PAYS;
        if !self.after.is_empty() || !is_worth_it || !stands_for_itself(text.as_bytes()) {
            return;
        }
        self.tries += 1;
        let literal = [b"\"", text.as_bytes(), b"\""].concat();
        let mut found = memchr::memmem::find_iter(data, &literal);
        let (Some(at), None) = (found.next(), found.next()) else { return };
        let (before, after) = (&data[..=at], &data[at + 1 + text.len()..]);
        let other = format!("{text}{text}");
        if said(&[before, other.as_bytes(), after].concat()).is_some_and(|said| said == other) {
            before.clone_into(&mut self.before);
            after.clone_into(&mut self.after);
        }
    }

    /// How many events it has fitted.
    #[cfg(test)]
    pub(super) fn hits(&self) -> u32 {
        self.hits
    }
}

/// Whether JSON writes the text, which is not empty, just so between its quotation marks.
fn stands_for_itself(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| *byte >= b' ' && !matches!(byte, b'"' | b'\\'))
}
