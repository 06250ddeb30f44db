//! Texts that end an answer.

/// Finds stop texts in an answer as it grows, and holds back what may be the beginning of one.
#[derive(Debug, Default)]
pub(crate) struct StopTexts {
    stops: Vec<String>,
    held: String,
}

impl StopTexts {
    /// Looks for these texts; empty ones are ignored.
    pub(crate) fn new(stops: &[String]) -> Self {
        Self { stops: stops.iter().filter(|stop| !stop.is_empty()).cloned().collect(), held: String::new() }
    }

    /// Takes more of the answer. Gives what is certainly part of it, and whether a stop text was reached.
    pub(crate) fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        if let Some(start) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(start);
            return (std::mem::take(&mut self.held), true);
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What was held back, when the answer has ended otherwise.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// How many bytes at the end of the text are the beginning of the stop text.
fn overlap(text: &str, stop: &str) -> usize {
    let ends = stop.char_indices().map(|(index, _)| index).rev();
    ends.into_iter().find(|end| text.ends_with(&stop[..*end])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stops(texts: &[&str]) -> StopTexts {
        StopTexts::new(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_stop_text_may_span_pieces() {
        let mut stop = stops(&["END", "###"]);
        assert_eq!(stop.push("one E"), ("one ".to_owned(), false));
        assert_eq!(stop.push("N"), (String::new(), false));
        assert_eq!(stop.push("D two"), (String::new(), true));
    }

    #[test]
    fn a_false_start_is_given_back() {
        let mut stop = stops(&["END"]);
        assert_eq!(stop.push("EN"), (String::new(), false));
        assert_eq!(stop.push("EMY"), ("ENEMY".to_owned(), false));
        assert_eq!(stop.push(" E"), (" ".to_owned(), false));
        assert_eq!(stop.finish(), "E");
    }

    #[test]
    fn the_first_of_several_counts() {
        assert_eq!(stops(&["b", "a"]).push("xxaxb"), ("xx".to_owned(), true));
        assert_eq!(stops(&["", "ß€"]).push("Fuß"), ("Fu".to_owned(), false));
    }

    proptest! {
        #[test]
        fn nothing_of_a_stop_text_is_given_away_and_nothing_else_is_lost(pieces in proptest::collection::vec("[ab]{0,3}", 0..12), texts in proptest::collection::vec("[ab]{1,4}", 0..3)) {
            let mut stop = StopTexts::new(&texts);
            let mut given = String::new();
            let mut stopped = false;
            for piece in &pieces {
                let (text, end) = stop.push(piece);
                given.push_str(&text);
                if end {
                    stopped = true;
                    break;
                }
            }
            let whole = pieces.concat();
            if stopped {
                let is_stop = |stop: &String| whole[given.len()..].starts_with(stop.as_str());
                prop_assert!(whole.starts_with(&given) && texts.iter().any(is_stop));
            } else {
                given.push_str(&stop.finish());
                prop_assert_eq!(&given, &whole);
            }
            prop_assert!(texts.iter().all(|stop| !given.contains(stop.as_str())));
        }
    }
}
