//! Server-sent events, as a provider sends them: bytes in, `data` out.

use thiserror::Error;

/// An event is longer than the decoder accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("an event of the stream is longer than {limit} bytes")]
pub struct EventTooLong {
    /// The limit in bytes.
    pub limit: usize,
}

/// Takes an event stream apart (WHATWG HTML, section 9.2.6, *interpreting an event stream*). Bytes may arrive split anywhere: in
/// the middle of a line, of a line ending or of a character. Only the `data` of events is kept; names, ids and retry times of
/// providers mean nothing here.
///
/// ```
/// use enigma_core::model::SseDecoder;
///
/// let mut decoder = SseDecoder::new(1024);
/// let mut seen = Vec::new();
/// for chunk in ["data: o", "ne\n", "\ndata: two\r\n\r\n"] {
///     decoder.push(chunk.as_bytes(), |data| seen.push(String::from_utf8_lossy(data).into_owned()))?;
/// }
/// assert_eq!(seen, ["one", "two"]);
/// # Ok::<(), enigma_core::model::EventTooLong>(())
/// ```
#[derive(Debug, Clone)]
pub struct SseDecoder {
    limit: usize,
    /// The start of a line whose end has not come yet.
    line: Vec<u8>,
    /// The data of the event at hand, without the last line feed.
    data: Vec<u8>,
    has_data: bool,
    /// The last byte was a carriage return, so a line feed that follows belongs to it.
    after_return: bool,
    at_start: bool,
}

impl SseDecoder {
    /// A decoder that refuses events, and lines, of more than `limit` bytes.
    pub const fn new(limit: usize) -> Self {
        Self { limit, line: Vec::new(), data: Vec::new(), has_data: false, after_return: false, at_start: true }
    }

    /// Takes more bytes and hands the data of each event that they complete to `on_data`.
    ///
    /// # Errors
    /// [`EventTooLong`]; the decoder is of no use afterwards.
    pub fn push(&mut self, mut bytes: &[u8], mut on_data: impl FnMut(&[u8])) -> Result<(), EventTooLong> {
        // The usual event is one `data` line and a blank one in the same chunk; its data is then handed on without a copy.
        let mut whole: Option<&[u8]> = None;
        if self.after_return && !bytes.is_empty() {
            self.after_return = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) {
            let (head, rest) = bytes.split_at(end);
            bytes = match rest {
                [b'\r'] => {
                    self.after_return = true;
                    &[]
                }
                [b'\r', b'\n', rest @ ..] | [_, rest @ ..] => rest,
                [] => &[],
            };
            if self.line.is_empty() {
                // However the bytes came: one that is too long is refused in one piece as it is in many.
                self.check(head.len())?;
                let line = self.without_mark(head);
                if line.is_empty() {
                    self.dispatch(&mut whole, &mut on_data);
                } else if let Some(data) = data_of(line) {
                    if !self.has_data && whole.is_none() {
                        whole = Some(data);
                    } else {
                        self.keep(&mut whole);
                        self.append(data)?;
                    }
                }
            } else {
                self.check(self.line.len() + head.len())?;
                self.line.extend_from_slice(head);
                let line = std::mem::take(&mut self.line);
                let text = self.without_mark(&line);
                if let Some(data) = data_of(text) {
                    self.keep(&mut whole);
                    self.append(data)?;
                }
                self.line = line;
                self.line.clear();
            }
        }
        self.keep(&mut whole);
        self.check(self.line.len() + bytes.len())?;
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn dispatch(&mut self, whole: &mut Option<&[u8]>, on_data: &mut impl FnMut(&[u8])) {
        if let Some(data) = whole.take() {
            on_data(data);
        } else if self.has_data {
            on_data(&self.data);
            self.data.clear();
            self.has_data = false;
        }
    }

    /// Copies data that must outlive its chunk, or be joined with more.
    fn keep(&mut self, whole: &mut Option<&[u8]>) {
        if let Some(data) = whole.take() {
            self.data.extend_from_slice(data);
            self.has_data = true;
        }
    }

    fn append(&mut self, data: &[u8]) -> Result<(), EventTooLong> {
        self.check(self.data.len() + data.len())?;
        if self.has_data {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(data);
        self.has_data = true;
        Ok(())
    }

    fn without_mark<'a>(&mut self, line: &'a [u8]) -> &'a [u8] {
        if std::mem::take(&mut self.at_start) { line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line) } else { line }
    }

    fn check(&self, length: usize) -> Result<(), EventTooLong> {
        if length > self.limit { Err(EventTooLong { limit: self.limit }) } else { Ok(()) }
    }
}

fn data_of(line: &[u8]) -> Option<&[u8]> {
    match line.strip_prefix(b"data")? {
        [] => Some(&[]),
        [b':', b' ', data @ ..] | [b':', data @ ..] => Some(data),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut decoder = SseDecoder::new(1 << 16);
        let mut seen = Vec::new();
        for chunk in chunks {
            decoder.push(chunk, |data| seen.push(data.to_vec())).unwrap();
        }
        seen
    }

    /// The specification, read literally over the whole text.
    fn oracle(text: &[u8]) -> Vec<Vec<u8>> {
        let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
        let (mut lines, mut line, mut rest) = (Vec::new(), Vec::new(), text);
        while let [first, tail @ ..] = rest {
            rest = tail;
            match first {
                b'\r' => {
                    rest = rest.strip_prefix(b"\n").unwrap_or(rest);
                    lines.push(std::mem::take(&mut line));
                }
                b'\n' => lines.push(std::mem::take(&mut line)),
                other => line.push(*other),
            }
        }
        let (mut events, mut data): (Vec<Vec<u8>>, Vec<u8>) = (Vec::new(), Vec::new());
        let mut has_data = false;
        for line in lines {
            if line.is_empty() {
                if has_data {
                    data.pop();
                    events.push(std::mem::take(&mut data));
                }
                has_data = false;
                continue;
            }
            let colon = line.iter().position(|b| *b == b':').unwrap_or(line.len());
            let value = line.get(colon + 1..).unwrap_or_default();
            if &line[..colon] == b"data" {
                data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
                data.push(b'\n');
                has_data = true;
            }
        }
        events
    }

    #[test]
    fn several_data_lines_are_joined_and_comments_are_skipped() {
        let text = b"\xEF\xBB\xBF: hello\nevent: x\ndata: a\ndata:b\ndata\nid: 4\n\ndata: c\n\n\n\ndata: lost";
        assert_eq!(decode(&[text]), [b"a\nb\n".to_vec(), b"c".to_vec()]);
    }

    #[test]
    fn a_line_without_an_end_cannot_fill_memory() {
        let mut decoder = SseDecoder::new(100);
        let mut fed = 0;
        while decoder.push(b"data: xxxxxxxxxxxxxxxxx", |_| {}).is_ok() {
            fed += 1;
            assert!(fed < 10);
        }
        let mut decoder = SseDecoder::new(100);
        let many = b"data: 0123456789\n".repeat(20);
        assert_eq!(decoder.push(&many, |_| {}), Err(EventTooLong { limit: 100 }));
        let whole = [&b"data: "[..], &[b'x'; 100], b"\n\n"].concat();
        assert_eq!(SseDecoder::new(100).push(&whole, |_| {}), Err(EventTooLong { limit: 100 }));
    }

    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(&b"data: x"[..]),
            Just(&b"data:y"[..]),
            Just(&b"data"[..]),
            Just(&b"datax: n"[..]),
            Just(&b": note"[..]),
            Just(&b"event: e"[..]),
            Just(&b"\n"[..]),
            Just(&b"\r"[..]),
            Just(&b"\r\n"[..]),
            Just(&b"\n\n"[..]),
            Just("é".as_bytes()),
            Just(&b"\xEF\xBB\xBF"[..]),
            Just(&b" "[..]),
            Just(&b":"[..]),
        ];
        proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_split_reads_as_the_specification_says(text in stream(), cuts in proptest::collection::vec(0usize..200, 0..8)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|w| &text[w[0]..w[1]]).collect();
            prop_assert_eq!(decode(&chunks), oracle(&text));
        }
    }
}
