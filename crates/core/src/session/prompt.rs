//! What a model is shown of a conversation.

use super::StoredMessage;
use crate::model::{ChatMessage, ResponseFormat, Role, ToolDefinition};

/// How much of a session's history goes into a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptLimits {
    /// Messages of history.
    pub max_messages: usize,
    /// Tokens of history, estimated.
    pub max_tokens: u64,
}

/// Estimates the tokens of a text: a token for every four characters, rounded up.
///
/// ```
/// assert_eq!(enigma_core::session::estimate_tokens("Hello"), 2);
/// ```
pub fn estimate_tokens(text: &str) -> u64 {
    (text.chars().count() as u64).div_ceil(4)
}

/// Estimates the tokens of a prompt.
pub fn prompt_tokens(messages: &[ChatMessage]) -> u64 {
    messages
        .iter()
        .map(|message| {
            let calls: u64 = message
                .tool_calls
                .iter()
                .map(|call| estimate_tokens(&call.name) + estimate_tokens(&call.arguments))
                .sum();
            estimate_tokens(&message.content) + calls
        })
        .sum()
}

/// Estimates what the tools and the schema of a call add to its prompt.
pub fn definition_tokens(tools: &[ToolDefinition], format: &ResponseFormat) -> u64 {
    let json = |value: &serde_json::Value| estimate_tokens(&value.to_string());
    let tools: u64 = tools
        .iter()
        .map(|tool| {
            estimate_tokens(&tool.name)
                + tool.description.as_deref().map_or(0, estimate_tokens)
                + tool.parameters.as_ref().map_or(0, json)
        })
        .sum();
    match format {
        ResponseFormat::JsonSchema(schema) => tools + json(schema),
        ResponseFormat::Text | ResponseFormat::JsonObject => tools,
    }
}

/// Puts a prompt together: the new messages' instructions first, then the newest of the history that fits, then the rest of the
/// new messages. The history shown never begins with an answer whose question was left out.
///
/// A client that sends its whole conversation each time, as the OpenAI protocol asks of it, is understood too: what it repeats
/// from before its last answer is known already, and is left out where the session has a history.
pub fn assemble_prompt(history: &[StoredMessage], new: Vec<ChatMessage>, limits: &PromptLimits) -> Vec<ChatMessage> {
    let mut shown = Vec::new();
    let mut tokens = 0;
    for message in history.iter().rev().take(limits.max_messages) {
        tokens += estimate_tokens(&message.content);
        if tokens > limits.max_tokens {
            break;
        }
        shown.push(message);
    }
    while shown.last().is_some_and(|message| message.role == Role::Assistant) {
        shown.pop();
    }
    let (instructions, rest): (Vec<_>, Vec<_>) = new.into_iter().partition(|message| message.role == Role::System);
    let known = if history.is_empty() { 0 } else { answered(rest.iter()) };
    let mut prompt = instructions;
    prompt.extend(shown.into_iter().rev().map(|message| ChatMessage::text(message.role, message.content.as_str())));
    prompt.extend(rest.into_iter().skip(known));
    prompt
}

/// How many of the messages come before the first that has no answer yet.
pub(crate) fn answered<'a>(messages: impl ExactSizeIterator<Item = &'a ChatMessage> + DoubleEndedIterator) -> usize {
    messages.enumerate().rfind(|(_, message)| message.role == Role::Assistant).map_or(0, |(last, _)| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::MessageId;
    use crate::time::Timestamp;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn stored(n: usize, role: Role, content: &str) -> StoredMessage {
        StoredMessage {
            id: MessageId::new(Uuid::from_u128(n as u128)),
            role,
            content: content.to_owned(),
            at: Timestamp::default(),
            tokens: None,
            truncated: false,
        }
    }

    proptest! {
        #[test]
        fn the_newest_history_that_fits_is_shown_in_order(
            texts in proptest::collection::vec("[a-z]{1,20}", 0..30), max_messages in 0usize..20, max_tokens in 0u64..60,
        ) {
            let history: Vec<_> = texts.iter().enumerate()
                .map(|(n, text)| stored(n, if n % 2 == 0 { Role::User } else { Role::Assistant }, text)).collect();
            let question = ChatMessage::text(Role::User, "new question");
            let prompt = assemble_prompt(&history, vec![question.clone()], &PromptLimits { max_messages, max_tokens });

            let (last, shown) = prompt.split_last().unwrap();
            prop_assert_eq!(last, &question);
            prop_assert!(shown.len() <= max_messages);
            prop_assert!(prompt_tokens(shown) <= max_tokens);
            prop_assert!(shown.first().is_none_or(|m| m.role == Role::User));
            let tail = &history[history.len() - shown.len()..];
            prop_assert!(shown.iter().zip(tail).all(|(a, b)| a.content == b.content && a.role == b.role));
        }
    }

    #[test]
    fn a_client_that_repeats_the_conversation_is_not_shown_it_twice() {
        let history = [stored(0, Role::User, "one"), stored(1, Role::Assistant, "two")];
        let text = |role, text: &str| ChatMessage::text(role, text);
        let new = vec![
            text(Role::System, "be brief"),
            text(Role::User, "one"),
            text(Role::Assistant, "two"),
            text(Role::User, "three"),
        ];
        let limits = PromptLimits { max_messages: 10, max_tokens: 100 };
        let said = |prompt: Vec<ChatMessage>| prompt.into_iter().map(|m| m.content).collect::<Vec<_>>();
        assert_eq!(said(assemble_prompt(&history, new.clone(), &limits)), ["be brief", "one", "two", "three"]);
        assert_eq!(said(assemble_prompt(&[], new, &limits)), ["be brief", "one", "two", "three"]);
    }
}
