//! Identities as LVM writes them: 32 characters, in text with dashes.

/// Characters between the dashes.
const GROUPS: [usize; 7] = [6, 4, 4, 4, 4, 4, 6];

/// The 32 characters of a label with dashes, as they stand in the text.
pub(crate) fn dashed(raw: &[u8; 32]) -> String {
    let mut text = String::with_capacity(38);
    let mut rest = raw.iter();
    for (index, count) in GROUPS.into_iter().enumerate() {
        if index > 0 {
            text.push('-');
        }
        text.extend(rest.by_ref().take(count).map(|&byte| printable(byte)));
    }
    text
}

/// The identity that a text names, as [`dashed`] writes it; `None` for what is none. LVM passes over
/// dashes wherever they stand.
pub(crate) fn parse(text: &str) -> Option<String> {
    let letters: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    let raw: &[u8; 32] = letters.as_slice().try_into().ok()?;
    raw.iter().all(|byte| is_letter(*byte)).then(|| dashed(raw))
}

/// Whether LVM uses this character in identities.
fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#".contains(&byte)
}

fn printable(byte: u8) -> char {
    if is_letter(byte) { byte.into() } else { '?' }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_thirty_two_letters_digits_or_marks_are_an_identity() {
        let good = "abc!ef-0123-WXYZ-#pqr-stuv-wxyz-012345";
        assert_eq!(parse(good).as_deref(), Some(good));
        assert_eq!(parse(&good.replace('-', "")).as_deref(), Some(good));
        for bad in ["", "vg", &good[1..], &format!("{good}0"), &good.replace('!', "/")] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
