//! The words of a query.

use super::words;

/// The most words that are looked for.
const MAX_WORDS: usize = 32;

/// Words that are in every text, and so tell nothing.
const STOP_WORDS: [&str; 72] = [
    "a", "about", "an", "and", "are", "as", "at", "be", "been", "but", "by", "can", "could", "did", "do", "does",
    "for", "from", "had", "has", "have", "he", "her", "his", "how", "i", "if", "in", "into", "is", "it", "its", "may",
    "me", "my", "no", "not", "of", "on", "or", "our", "she", "should", "so", "than", "that", "the", "their", "them",
    "then", "there", "these", "they", "this", "those", "to", "was", "we", "were", "what", "when", "where", "which",
    "who", "why", "will", "with", "would", "you", "your", "am", "us",
];

/// The words of `query` that a keyword index is asked for: each of its [`words`] once, without English
/// words that tell nothing, unless there is nothing else.
///
/// ```
/// use enigma_core::retrieval::keywords;
/// assert_eq!(keywords("How do I read a file with std::fs?"), ["read", "file", "std", "fs"]);
/// assert_eq!(keywords("What is it"), ["what", "is", "it"]);
/// ```
pub fn keywords(query: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for word in words(query) {
        if !found.contains(&word) {
            found.push(word);
        }
    }
    let is_telling = |word: &String| !STOP_WORDS.contains(&&**word);
    if found.iter().any(is_telling) {
        found.retain(is_telling);
    }
    found.truncate(MAX_WORDS);
    found
}
