//! Capacities and their units.

/// Bytes of a `capacity` in `units`, as the descriptor writes both. `None` for what is no number, an
/// unknown unit, or more than a number of bytes can be.
pub(crate) fn capacity(capacity: &str, units: Option<&str>) -> Option<u64> {
    let number: u64 = capacity.trim().parse().ok()?;
    number.checked_mul(unit(units.unwrap_or("byte"))?)
}

/// Bytes of a unit: `byte`, `byte * 2^20`, or a word of older descriptors.
fn unit(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let shift = match text.as_str() {
        "byte" | "bytes" => 0,
        "kilobytes" | "kb" => 10,
        "megabytes" | "mb" => 20,
        "gigabytes" | "gb" => 30,
        "terabytes" | "tb" => 40,
        _ => {
            let (byte, power) = text.split_once('*')?;
            let (base, exponent) = power.split_once('^')?;
            if byte.trim() != "byte" || base.trim() != "2" {
                return None;
            }
            exponent.trim().parse().ok()?
        }
    };
    1_u64.checked_shl(shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacities_are_read_in_all_the_units_that_are_written() {
        for (number, units, bytes) in [
            ("512", None, Some(512)),
            (" 8 ", Some("byte"), Some(8)),
            ("4136", Some("byte * 2^9"), Some(4136 << 9)),
            ("2", Some("byte*2 ^ 30"), Some(2 << 30)),
            ("3", Some("GigaBytes"), Some(3 << 30)),
            ("1", Some("byte * 2^64"), None),
            ("9223372036854775808", Some("byte * 2^60"), None),
            ("1", Some("byte * 10^3"), None),
            ("${size}", None, None),
            ("-1", None, None),
            ("1", Some("furlong"), None),
        ] {
            assert_eq!(capacity(number, units), bytes, "{number} {units:?}");
        }
    }
}
