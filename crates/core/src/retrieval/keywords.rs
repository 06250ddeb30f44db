//! The words of a query.

/// The most words that are looked for.
const MAX_WORDS: usize = 32;
/// Longer ones are no words.
const MAX_LENGTH: usize = 64;

/// Words that are in every text, and so tell nothing.
const STOP_WORDS: [&str; 72] = [
    "a", "about", "an", "and", "are", "as", "at", "be", "been", "but", "by", "can", "could", "did", "do", "does",
    "for", "from", "had", "has", "have", "he", "her", "his", "how", "i", "if", "in", "into", "is", "it", "its", "may",
    "me", "my", "no", "not", "of", "on", "or", "our", "she", "should", "so", "than", "that", "the", "their", "them",
    "then", "there", "these", "they", "this", "those", "to", "was", "we", "were", "what", "when", "where", "which",
    "who", "why", "will", "with", "would", "you", "your", "am", "us",
];

/// The words of `query` that a keyword index is asked for: runs of letters and digits in lower case, each once, without English
/// words that tell nothing, unless there is nothing else.
///
/// ```
/// use enigma_core::retrieval::keywords;
/// assert_eq!(keywords("How do I read a file with std::fs?"), ["read", "file", "std", "fs"]);
/// assert_eq!(keywords("What is it"), ["what", "is", "it"]);
/// ```
pub fn keywords(query: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in query.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty() && word.len() <= MAX_LENGTH)
    {
        let word = word.to_lowercase();
        if !words.contains(&word) {
            words.push(word);
        }
    }
    let is_telling = |word: &String| !STOP_WORDS.contains(&&**word);
    if words.iter().any(is_telling) {
        words.retain(is_telling);
    }
    words.truncate(MAX_WORDS);
    words
}
