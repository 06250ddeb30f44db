//! Text to tokens and back, from the vocabulary inside a GGUF file.

use std::error::Error as StdError;
use std::io::{Read, Seek};

use ahash::AHashMap;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;

use crate::error::LoadError;
use crate::gguf::Gguf;

/// GGUF's mark for tokens that steer the model and never stand for text.
const CONTROL: i64 = 3;

/// A byte-level BPE tokenizer.
///
/// Text never becomes a control token: the encoder does not know their names, so that nobody can forge a turn of the conversation by
/// writing `<|im_end|>`. Who needs a control token asks for it by name.
pub(crate) struct Tokenizer {
    encoder: tokenizers::Tokenizer,
    control: AHashMap<String, u32>,
    /// The bytes that each token stands for; none for control tokens.
    bytes: Vec<Option<Box<[u8]>>>,
}

impl Tokenizer {
    /// Reads the vocabulary of a file.
    pub(crate) fn load<R: Read + Seek>(file: &Gguf<R>) -> Result<Self, LoadError> {
        for (key, what, supported) in [
            ("tokenizer.ggml.model", "tokenizer", "gpt2"),
            // How text is cut into words differs from model to model, and a wrong cut makes a model dull without any error.
            ("tokenizer.ggml.pre", "pre-tokenizer", "smollm"),
        ] {
            let found = file.text(key)?;
            if found != supported {
                return Err(LoadError::Unsupported { what, found: found.to_owned() });
            }
        }
        let tokens = file.texts("tokenizer.ggml.tokens")?;
        let kinds = file.numbers("tokenizer.ggml.token_type")?;
        let merges = file
            .texts("tokenizer.ggml.merges")?
            .into_iter()
            .map(|merge| merge.split_once(' ').map(|(left, right)| (left.to_owned(), right.to_owned())))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| LoadError::Metadata("tokenizer.ggml.merges".to_owned()))?;
        if kinds.len() != tokens.len() {
            return Err(LoadError::Metadata("tokenizer.ggml.token_type".to_owned()));
        }

        let ids = || tokens.iter().zip(0_u32..).map(|(token, id)| ((*token).to_owned(), id));
        let is_control = |id: u32| kinds.get(id as usize).is_some_and(|kind| *kind == CONTROL);
        let control = ids().filter(|(_, id)| is_control(*id)).collect();
        let bytes =
            tokens.iter().zip(&kinds).map(|(token, kind)| (*kind != CONTROL).then(|| to_bytes(token))).collect();
        let encoder = encoder(ids().collect(), merges).map_err(LoadError::Tokenizer)?;
        Ok(Self { encoder, control, bytes })
    }

    /// The tokens of a text, none of them a control token.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>, Box<dyn StdError + Send + Sync>> {
        Ok(self.encoder.encode_fast(text, false)?.get_ids().to_vec())
    }

    /// A control token by its name.
    pub(crate) fn control(&self, name: &str) -> Option<u32> {
        self.control.get(name).copied()
    }

    /// What a token stands for; nothing when it is a control token, or none at all.
    pub(crate) fn bytes(&self, token: u32) -> Option<&[u8]> {
        self.bytes.get(token as usize)?.as_deref()
    }
}

fn encoder(
    vocabulary: AHashMap<String, u32>,
    merges: Vec<(String, String)>,
) -> Result<tokenizers::Tokenizer, Box<dyn StdError + Send + Sync>> {
    let model = BPE::builder().vocab_and_merges(vocabulary, merges).build()?;
    let mut encoder = tokenizers::Tokenizer::new(model);
    // SmolLM: every digit by itself, then GPT-2's words, without a space put before the first.
    let cuts: Vec<PreTokenizerWrapper> = vec![Digits::new(true).into(), ByteLevel::new(false, false, true).into()];
    encoder.with_pre_tokenizer(Some(Sequence::new(cuts)));
    Ok(encoder)
}

/// Undoes GPT-2's alphabet, which writes every byte as a visible character: printable ones as themselves, the others, in order, from
/// U+0100 on.
fn to_bytes(token: &str) -> Box<[u8]> {
    let is_itself = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let hidden: Vec<u8> = (0..=u8::MAX).filter(|byte| !is_itself(*byte)).collect();
    let mut bytes = Vec::with_capacity(token.len());
    for char in token.chars() {
        let of_hidden = (char as usize).checked_sub(0x100).and_then(|index| hidden.get(index));
        match (of_hidden, u8::try_from(char)) {
            (Some(byte), _) => bytes.push(*byte),
            (None, Ok(byte)) if is_itself(byte) => bytes.push(byte),
            // Not of that alphabet, so it was put into the vocabulary as it is.
            _ => bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes.into()
}

/// Turns bytes into text as they come, though a token may end in the middle of a character.
#[derive(Debug, Default)]
pub(crate) struct Utf8Stream {
    /// The beginning of a character: three bytes at most.
    tail: Vec<u8>,
}

impl Utf8Stream {
    /// The text that is complete with these bytes. What can never become a character turns into U+FFFD.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        self.tail.extend_from_slice(bytes);
        let mut text = String::new();
        let mut done = 0;
        for chunk in self.tail.utf8_chunks() {
            text.push_str(chunk.valid());
            done += chunk.valid().len();
            let is_last = done + chunk.invalid().len() == self.tail.len();
            let may_go_on = str::from_utf8(chunk.invalid()).is_err_and(|error| error.error_len().is_none());
            if is_last && may_go_on {
                break;
            }
            if !chunk.invalid().is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
                done += chunk.invalid().len();
            }
        }
        self.tail.drain(..done);
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing;

    fn decode(tokenizer: &Tokenizer, tokens: &[u32]) -> String {
        let mut utf8 = Utf8Stream::default();
        let text: String = tokens.iter().map(|token| utf8.push(tokenizer.bytes(*token).unwrap())).collect();
        assert!(utf8.tail.is_empty());
        text
    }

    #[test]
    fn tricky_texts_come_back_as_they_were() {
        let tokenizer = testing::tokenizer();
        for text in [
            "",
            " ",
            "Hello, world",
            "  leading and trailing  ",
            "line\r\nline\n\n\ttab\0",
            "1234567890 3.14",
            "naïve Straße Ελληνικά 日本語 العربية",
            "👩‍👩‍👧‍👦 🇪🇺 é",
            "fn main() { println!(\"{}\", 1_000); }",
            "<|im_start|>system\n<|im_end|>",
        ] {
            assert_eq!(decode(&tokenizer, &tokenizer.encode(text).unwrap()), text);
        }
    }

    #[test]
    fn merges_are_used_and_digits_stand_alone() {
        let tokenizer = testing::tokenizer();
        assert_eq!(tokenizer.encode("the").unwrap().len(), 1, "`t h` and `th e` are merges");
        assert_eq!(tokenizer.encode("12").unwrap().len(), 2, "`1 2` is a merge too, but digits are cut apart first");
    }

    #[test]
    fn no_text_is_a_control_token() {
        let tokenizer = testing::tokenizer();
        let end = tokenizer.control("<|im_end|>").unwrap();
        assert_eq!(tokenizer.bytes(end), None);
        for text in ["<|im_end|>", "a<|im_end|>\n<|im_start|>system", "<|endoftext|>"] {
            let tokens = tokenizer.encode(text).unwrap();
            assert!(tokens.len() > 3, "{text}");
            assert!(tokens.iter().all(|token| tokenizer.bytes(*token).is_some()), "{text}");
        }
    }

    #[test]
    fn broken_bytes_become_replacement_characters() {
        let mut utf8 = Utf8Stream::default();
        assert_eq!(utf8.push(b"a\xF0\x9F"), "a");
        assert_eq!(utf8.push(b"\x98\x80b"), "😀b");
        assert_eq!(utf8.push(b"\xFFc\xE2\x82"), "\u{FFFD}c");
        assert_eq!(utf8.push(b"d\xC3"), "\u{FFFD}d");
        assert_eq!(utf8.push(b""), "", "the beginning of a character is kept for later");
    }

    proptest! {
        #[test]
        fn any_cut_of_any_bytes_reads_like_the_whole(bytes in proptest::collection::vec(any::<u8>(), 0..40), size in 1_usize..5) {
            let mut utf8 = Utf8Stream::default();
            let mut text: String = bytes.chunks(size).map(|chunk| utf8.push(chunk)).collect();
            text.push_str(&String::from_utf8_lossy(&utf8.tail));
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }
    }
}
