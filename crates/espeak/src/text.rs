//! Texts, without what the engine would take for more than a text.

/// The text with nothing in it but what is to be spoken. Between `[[` and `]]` the engine reads phonemes, and behind some control
/// characters commands, such as for another speed: the first gets a space into it, and the second become spaces.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut before = ' ';
    for c in text.chars() {
        if c == '[' && before == '[' {
            plain.push(' ');
        }
        plain.push(if c.is_control() && c != '\n' { ' ' } else { c });
        before = c;
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_is_a_command() {
        assert_eq!(plain("[[h@'loU]] a[0] [[["), "[ [h@'loU]] a[0] [ [ [");
        assert_eq!(plain("a\u{1}200S\0b\tc\nd\u{9b}"), "a 200S b c\nd ");
        let ordinary = "Grüße ☔ <b>&amp; $(touch x); --version -f /etc/passwd";
        assert_eq!(plain(ordinary), ordinary);
    }
}
