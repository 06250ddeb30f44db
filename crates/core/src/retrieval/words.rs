//! What counts as a word, in texts and in questions alike.

/// The longest word, in characters. What is longer is cut to it: keys, hashes and the like are not what people search for.
const MAX_WORD: usize = 64;

/// The words of a text, in their order and in lower case: runs of letters and digits. Scripts that put no blanks between words
/// (Chinese, Japanese) have a word for each character.
///
/// Every index over texts is made of these words, and every question is cut into them, so that both hosts find the same.
///
/// ```
/// use enigma_core::retrieval::words;
/// let found: Vec<String> = words("Don't PANIC: 世界 2.0").collect();
/// assert_eq!(found, ["don", "t", "panic", "世", "界", "2", "0"]);
/// ```
pub fn words(text: &str) -> impl Iterator<Item = String> {
    let mut rest = text.chars().peekable();
    std::iter::from_fn(move || {
        let first = rest.by_ref().find(|c| c.is_alphanumeric())?;
        let mut word = String::new();
        let mut length = 0;
        let mut add = |c: char| {
            for lower in c.to_lowercase().filter(|c| c.is_alphanumeric()) {
                if length < MAX_WORD {
                    // Only its place in the word tells the two sigmas apart.
                    word.push(if lower == 'ς' { 'σ' } else { lower });
                    length += 1;
                }
            }
        };
        add(first);
        if !stands_alone(first) {
            while let Some(c) = rest.next_if(|c| c.is_alphanumeric() && !stands_alone(*c)) {
                add(c);
            }
        }
        Some(word)
    })
}

/// Whether a character is a word of its own: ideographs and kana.
fn stands_alone(c: char) -> bool {
    matches!(c,
        '\u{3005}'..='\u{3007}' // marks that stand for ideographs
        | '\u{3041}'..='\u{30ff}' // Hiragana, Katakana
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' // Han
        | '\u{ff66}'..='\u{ff9f}' // Katakana of half the width
        | '\u{20000}'..='\u{3ffff}' // rarer Han
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str) -> Vec<String> {
        words(text).collect()
    }

    #[test]
    fn case_is_folded_in_every_script() {
        assert_eq!(of("GRÜSSE Straße ΟΔΟΣ Мир İstanbul ǅ"), ["grüsse", "straße", "οδοσ", "мир", "istanbul", "ǆ"]);
    }

    #[test]
    fn signs_are_no_words() {
        assert_eq!(of(""), [""; 0]);
        assert_eq!(of(" \"* OR -(a:b) NEAR/2 \0 🦀"), ["or", "a", "b", "near", "2"]);
    }

    #[test]
    fn scripts_without_blanks_have_a_word_for_each_character() {
        assert_eq!(of("東京タワー2階 한국어"), ["東", "京", "タ", "ワ", "ー", "2", "階", "한국어"]);
    }

    #[test]
    fn long_runs_are_cut() {
        assert_eq!(of(&"x".repeat(1000)), ["x".repeat(64)]);
    }

    proptest! {
        #[test]
        fn a_word_is_the_only_word_of_itself(text in "\\PC{0,40}") {
            for word in words(&text) {
                prop_assert_eq!(of(&word), std::slice::from_ref(&word));
                prop_assert!((1..=MAX_WORD).contains(&word.chars().count()));
            }
        }
    }
}
