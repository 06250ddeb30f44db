//! RIFF headers that were written before the end of the audio was known.

/// The bytes of a chunk's name and size.
const HEAD: usize = 8;

/// Writes into the header of a whole WAV how much there really is, where it says more: what is made as a stream begins with a guess.
/// Anything else is left as it is.
pub fn settle_sizes(audio: &mut [u8]) {
    let Some(total) = audio.len().checked_sub(HEAD).and_then(|size| u32::try_from(size).ok()) else { return };
    if !audio.starts_with(b"RIFF") || audio.get(8..12) != Some(b"WAVE") {
        return;
    }
    if size_at(audio, 4).is_some_and(|said| said > total) {
        audio[4..8].copy_from_slice(&total.to_le_bytes());
    }
    let mut at = 12;
    while let Some(said) = size_at(audio, at + 4) {
        let left = audio.len() - at - HEAD;
        let (Ok(left_size), Ok(said_size)) = (u32::try_from(left), usize::try_from(said)) else { return };
        if &audio[at..at + 4] == b"data" {
            if said > left_size {
                audio[at + 4..at + HEAD].copy_from_slice(&left_size.to_le_bytes());
            }
            return;
        }
        // Chunks are padded to an even length.
        let Some(next) = said_size.checked_add(said_size % 2).and_then(|size| size.checked_add(at + HEAD)) else {
            return;
        };
        at = next;
    }
}

fn size_at(audio: &[u8], at: usize) -> Option<u32> {
    let bytes = audio.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wav(riff: u32, data: u32, extra: &[u8], samples: &[u8]) -> Vec<u8> {
        let mut wav = b"RIFF".to_vec();
        wav.extend(riff.to_le_bytes());
        wav.extend(b"WAVEfmt ");
        wav.extend(16_u32.to_le_bytes());
        wav.extend([0; 16]);
        wav.extend(extra);
        wav.extend(b"data");
        wav.extend(data.to_le_bytes());
        wav.extend(samples);
        wav
    }

    #[test]
    fn a_guess_becomes_what_there_is() {
        for guess in [0x7fff_f000, u32::MAX] {
            let mut audio = wav(guess, guess, b"", b"abcdef");
            settle_sizes(&mut audio);
            assert_eq!(audio, wav(42, 6, b"", b"abcdef"));
        }
        let mut listed = wav(u32::MAX, u32::MAX, b"LIST\x03\0\0\0abc\0", b"ab");
        settle_sizes(&mut listed);
        assert_eq!(listed, wav(50, 2, b"LIST\x03\0\0\0abc\0", b"ab"));
    }

    #[test]
    fn what_is_right_and_what_is_no_wav_stay() {
        let mut more = wav(100, 2, b"", b"ab");
        more.extend(b"LIST\x02\0\0\0ab");
        for audio in
            [wav(38, 2, b"", b"ab"), b"OggS\0\0\0\0".to_vec(), b"RIFF".to_vec(), Vec::new(), more[..46].to_vec()]
        {
            let mut settled = audio.clone();
            settle_sizes(&mut settled);
            if audio.len() == 46 && audio[4] == 100 {
                assert_eq!(settled, wav(38, 2, b"", b"ab"));
            } else {
                assert_eq!(settled, audio);
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_of_it_can_panic_or_change_the_length(mut bytes in proptest::collection::vec(any::<u8>(), 0..80), is_wav in any::<bool>()) {
            if is_wav && bytes.len() >= 12 {
                bytes[..4].copy_from_slice(b"RIFF");
                bytes[8..12].copy_from_slice(b"WAVE");
            }
            let length = bytes.len();
            settle_sizes(&mut bytes);
            prop_assert_eq!(bytes.len(), length);
        }
    }
}
