//! Numbers and sizes as people type them.

/// A size as people type it, and as qemu reads it: digits, optionally a fraction, and a suffix `b`,
/// `k`, `M`, `G`, `T`, `P` or `E` (powers of 1024, either case); or `0x` and hexadecimal digits. Blanks
/// and a `+` may stand before it. `None` for anything else, a fraction of a byte too.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let text = unsigned(text);
    if let Some(digits) = hexadecimal(text) {
        return whole_number(digits, 16);
    }
    let (digits, shift) = match text.char_indices().next_back()? {
        (at, suffix) if suffix.is_ascii_alphabetic() => (&text[..at], shift_of(suffix)?),
        _ => (text, 0),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = match whole {
        "" if !fraction.is_empty() => 0,
        _ => whole_number(whole, 10)?,
    };
    let whole = u128::from(whole) << shift;
    u64::try_from(whole + fraction_of(fraction, shift)?).ok()
}

/// What the digits behind a point are of `1 << shift` bytes, rounded.
fn fraction_of(digits: &str, shift: u32) -> Option<u128> {
    /// More make no difference.
    const MOST: usize = 18;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = digits.get(..MOST).unwrap_or(digits).trim_end_matches('0');
    let Some(number) = (!digits.is_empty()).then(|| whole_number(digits, 10)) else {
        return Some(0);
    };
    let scale = 10_u128.pow(u32::try_from(digits.len()).ok()?);
    let doubled = (u128::from(number?) << shift) * 2;
    (shift > 0).then_some((doubled + scale) / (2 * scale))
}

/// A number as C reads it: decimal, hexadecimal behind `0x`, octal behind `0`; blanks and a `+` may
/// stand before it. `None` for anything else.
#[must_use]
pub fn parse_number(text: &str) -> Option<u64> {
    let text = unsigned(text);
    match (hexadecimal(text), text.strip_prefix('0')) {
        (Some(digits), _) => whole_number(digits, 16),
        (None, Some(digits)) if !digits.is_empty() => whole_number(digits, 8),
        (None, _) => whole_number(text, 10),
    }
}

/// What stands behind blanks and a sign.
fn unsigned(text: &str) -> &str {
    let text = text.trim_ascii_start();
    text.strip_prefix('+').unwrap_or(text)
}

fn hexadecimal(text: &str) -> Option<&str> {
    text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))
}

/// Digits alone: the standard library takes signs too.
fn whole_number(digits: &str, radix: u32) -> Option<u64> {
    let is_plain = digits.chars().all(|digit| digit.is_digit(radix));
    is_plain.then(|| u64::from_str_radix(digits, radix).ok())?
}

fn shift_of(suffix: char) -> Option<u32> {
    let step = "bkmgtpe".find(suffix.to_ascii_lowercase())?;
    u32::try_from(step * 10).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_type_them() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512b", 512),
            ("64k", 65536),
            ("1.5G", 3 << 29),
            ("7E", 7 << 60),
            (".5M", 1 << 19),
            ("1.k", 1024),
            ("1.0", 1),
            ("0.3k", 307),
            ("0.7k", 717),
            ("1.99999999999999999999k", 2048),
            (" +1M", 1 << 20),
            ("010", 10),
            ("0x1b", 27),
            ("0XfF", 255),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in [
            "", "k", "-1", "1x", "1kk", "16E", "1.2.3", "٣", ".", ".k", "1.5", "1.5b", "1M ",
            "+-1", "++1", "0x", "0x1k", "0x+1", "1e3", "+ 1", "1.+5k",
        ] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_read_as_c_reads_them() {
        for (text, number) in [("0", 0), ("16", 16), ("0x10", 16), ("020", 16), (" +7", 7)] {
            assert_eq!(parse_number(text), Some(number), "{text}");
        }
        for text in ["", "1k", "1.0", "09", "-1", "0x"] {
            assert_eq!(parse_number(text), None, "{text}");
        }
    }
}
