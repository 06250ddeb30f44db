//! The engine's list of its voices.

use enigma_core::model::Voice;

/// The voices of a list such as `espeak-ng --voices` prints, one for each language, with `default` first if it is there.
pub(crate) fn parse(list: &str, default: &str) -> Vec<Voice> {
    let mut voices: Vec<Voice> = Vec::new();
    for line in list.lines().skip(1) {
        let columns: Vec<_> = line.split_whitespace().collect();
        let [_, language, _, name, file, ..] = columns[..] else { continue };
        // Those of another engine, whose files are mostly not there.
        let is_own = !file.starts_with("mb/");
        // What becomes an argument must not look like an option, whatever the list says.
        let is_tag = language.starts_with(|c: char| c.is_ascii_alphabetic())
            && language.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if is_own && is_tag && voices.iter().all(|voice| voice.id != language) {
            let language = language.to_owned();
            voices.push(Voice { id: language.clone(), name: name.replace('_', " "), language: Some(language) });
        }
    }
    if let Some(at) = voices.iter().position(|voice| voice.id == default) {
        voices[..=at].rotate_right(1);
    }
    voices
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
Pty Language       Age/Gender VoiceName          File                 Other Languages
 5  af              --/M      Afrikaans          gmw/af
 2  en-gb           --/M      English_(Great_Britain) gmw/en               (en 2)
 5  en-us           --/M      English_(America)  gmw/en-US            (en 3)
 5  en-us           --/F      English_again      gmw/other
 7  en-us-mb        --/M      Mbrola             mb/mb-us1
 5  --version       --/M      Odd                x/y
 5
";

    #[test]
    fn each_language_is_a_voice_and_the_default_comes_first() {
        let voices = parse(LIST, "en-us");
        let ids: Vec<_> = voices.iter().map(|voice| voice.id.as_str()).collect();
        assert_eq!(ids, ["en-us", "af", "en-gb"]);
        assert_eq!(voices[0].name, "English (America)");
        assert_eq!(voices[2].language.as_deref(), Some("en-gb"));
        assert_eq!(parse(LIST, "xx")[0].id, "af");
        assert!(parse("", "en").is_empty());
    }
}
