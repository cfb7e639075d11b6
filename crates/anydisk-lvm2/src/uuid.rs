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

fn printable(byte: u8) -> char {
    if byte.is_ascii_graphic() { byte.into() } else { '?' }
}
