//! Sizes and values for people.

use std::fmt::Write;

use anydisk::one_line;

use super::json::{Object, Value};

const UNITS: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// A size with three significant digits: `1.5 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    // From 1000 of a unit on the next larger unit is taken: log2 of bytes * 1024/1000.
    let scaled = u128::from(bytes) * 1024 / 1000;
    let unit = (scaled.max(1).ilog2() / 10).min(6);
    let divisor = 1_u64 << (10 * unit);
    format!("{} {}B", three_digits(quotient(bytes, divisor)), UNITS[unit as usize])
}

/// A size with its number of bytes.
pub(crate) fn size_and_bytes(bytes: u64) -> String {
    format!("{} ({bytes} bytes)", size(bytes))
}

/// `bytes / divisor` as a fraction; sizes over 2^53 bytes lose digits that are not shown.
fn quotient(bytes: u64, divisor: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let (bytes, divisor) = (bytes as f64, divisor as f64);
    bytes / divisor
}

/// As C's `%0.3g`.
fn three_digits(value: f64) -> String {
    let scientific = format!("{value:.2e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<usize>() {
        Ok(exponent @ 0..=2) => strip(&format!("{value:.*}", 2 - exponent)),
        Ok(exponent) => format!("{}e+{exponent:02}", strip(digits)),
        Err(_) => strip(&format!("{value:.3}")), // Below 1: at least 1000/1024.
    }
}

fn strip(number: &str) -> String {
    match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => number.to_owned(),
    }
}

/// The members of an object, a line each, `depth` times four blanks to the right.
pub(crate) fn write_object(out: &mut String, object: &Object, depth: usize) {
    for (name, value) in object.members() {
        write_named(out, &name.replace('-', " "), value, depth);
    }
}

fn write_named(out: &mut String, name: &str, value: &Value, depth: usize) {
    let mut line = |value: &dyn std::fmt::Display| {
        writeln!(out, "{:indent$}{name}:{value}", "", indent = 4 * depth)
            .expect("a string takes any text");
    };
    match value {
        Value::Flag(flag) => line(&format_args!(" {flag}")),
        Value::Number(number) => line(&format_args!(" {number}")),
        Value::Text(text) => line(&format_args!(" {}", one_line(text))),
        Value::List(items) => {
            line(&"");
            for (index, item) in items.iter().enumerate() {
                write_named(out, &format!("[{index}]"), item, depth + 1);
            }
        }
        Value::Object(object) => {
            line(&"");
            write_object(out, object, depth + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits_and_the_next_unit_begins_at_1000() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "0.977 KiB"),
            (1536, "1.5 KiB"),
            (331_776, "324 KiB"),
            (1 << 20, "1 MiB"),
            (1_234_567_890, "1.15 GiB"),
            (1023 << 10, "0.999 MiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }
}
